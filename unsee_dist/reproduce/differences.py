"""How two arms differ in a score: seed by seed, with an interval over seeds and, on STS, one over pairs.

A difference is claimed only where every interval leaves out 0: other seeds and other sentences would show it, too. One seed
has no interval, and claims nothing.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from unsee_dist.evaluation.intervals import ScoreDifference, over_seeds, paired_difference
from unsee_dist.metrics.task_score import PairCosines
from unsee_dist.reproduce.experiment import BEFORE, Claim
from unsee_dist.reproduce.results import Results, against_of

Finding = Literal["better", "worse", "noise", "one seed", "no score"]


class Difference(NamedTuple):
    """gaps: by seed. pairs: how many the second interval is over."""

    score: str
    gaps: tuple[float, ...]
    seeds: ScoreDifference | None
    of_pairs: ScoreDifference | None
    pairs: int

    @property
    def value(self) -> float:
        return float(np.mean(self.gaps)) if self.gaps else float("nan")

    @property
    def finding(self) -> Finding:
        if not self.gaps:
            return "no score"
        if self.seeds is None:
            return "one seed"
        verdicts = {each.verdict for each in (self.seeds, self.of_pairs) if each is not None}
        if verdicts == {"better"}:
            return "better"
        return "worse" if verdicts == {"worse"} else "noise"


def difference(results: Results, claim: Claim, score: str) -> Difference:
    """Of the seeds that both have."""
    ours, theirs = (
        results.values(claim.arm, score),
        against_of(results, claim.arm, claim.against, score),
    )
    shared = sorted(ours.keys() & theirs.keys())
    gaps = tuple(ours[seed] - theirs[seed] for seed in shared)
    of_pairs, pairs = _over_pairs(results, claim, score, shared)
    return Difference(score, gaps, over_seeds(gaps), of_pairs, pairs)


def _over_pairs(
    results: Results, claim: Claim, score: str, seeds: list[int]
) -> tuple[ScoreDifference | None, int]:
    """The paired bootstrap, where the score is of an STS task."""
    ours = [each.tasks.get(score) for each in results.of(claim.arm) if each.unit.seed in seeds]
    if claim.against == BEFORE:
        theirs = [each.untrained.get(score) for each in results.of(claim.arm) if each.unit.seed in seeds]
    else:
        theirs = [each.tasks.get(score) for each in results.of(claim.against) if each.unit.seed in seeds]
    mine = [each.pairs for each in ours if each is not None and each.pairs is not None]
    other = [each.pairs for each in theirs if each is not None and each.pairs is not None]
    if not mine or len(mine) != len(seeds) or len(other) != len(seeds):
        return None, 0
    gap = paired_difference(_rows(mine), _rows(other), np.array(mine[0].scores))
    return gap, len(mine[0].scores)


def _rows(of: list[PairCosines]) -> np.ndarray:
    return np.array([each.cosines for each in of])
