"""What all units of an experiment have measured, read from their folders: scores by arm and seed.

A score is the metric that chose best/ (dev/sts, else dev/mrr), at best/ and at the end, or that of a task. At best/ it is high by
that choice, for every arm: with tasks, no claim is about it. At the end nothing was chosen, and a collapse is seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from unsee_dist.config.kinds import shown
from unsee_dist.evaluation.tasks import EvaluationRequest
from unsee_dist.metrics.names import SENTENCES_PER_S, STEP, best_metric
from unsee_dist.metrics.verdict import DIGITS
from unsee_dist.report.run_files import RunFiles, open_run
from unsee_dist.reproduce.experiment import BEFORE, Experiment, Plan
from unsee_dist.reproduce.runner import said
from unsee_dist.reproduce.scoring import Scores, score_run, score_untrained
from unsee_dist.reproduce.units import Unit
from unsee_dist.tracking.metrics_file import Line

AT_END = " at the end"  # of a score: of the last evaluation


@dataclass(frozen=True)
class UnitResult:
    """why: it ended before its last step; "" = it did not. best: {} where no evaluation became it. tasks, untrained: of best/
    (or final/), and of the encoder that the run began with."""

    unit: Unit
    settings: Mapping[str, object]
    why: str
    steps: int
    before: Line
    best: Line
    last: Line
    evaluations: Sequence[Line]
    sentences_per_s: float
    tasks: Scores
    untrained: Scores


@dataclass(frozen=True)
class Results:
    experiment: Experiment
    plan: Plan
    seeds: int
    units: Sequence[UnitResult]

    def of(self, arm: str) -> list[UnitResult]:
        return [each for each in self.units if each.unit.arm == arm]

    @property
    def small(self) -> bool:
        return self.plan.small

    @property
    def deciding(self) -> str | None:
        """What chose best/ in every run; None without one."""
        names = {best[0] for each in self.units if (best := best_metric(each.before or each.best))}
        return names.pop() if len(names) == 1 else None

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(task for each in self.units for task in each.tasks))

    @property
    def scores(self) -> list[str]:
        """The names of all scores, in the order of the table."""
        deciding = [self.deciding, self.deciding + AT_END] if self.deciding else []
        return [*deciding, *self.tasks]

    @property
    def claimed(self) -> list[str]:
        """The scores that claims are about."""
        return [score for score in self.scores if not (self.tasks and score == self.deciding)]

    def values(self, arm: str, score: str) -> dict[int, float]:
        """By seed, where it has one. Of BEFORE, nothing: it is what each run began with."""
        by_seed = {each.unit.seed: _score(each, score) for each in self.of(arm)}
        return {seed: value for seed, value in by_seed.items() if math.isfinite(value)}

    def before(self, arm: str, score: str) -> dict[int, float]:
        """The same of the encoder that the runs of an arm began with."""
        by_seed = {each.unit.seed: _score_before(each, score) for each in self.of(arm)}
        return {seed: value for seed, value in by_seed.items() if math.isfinite(value)}


def collect(
    experiment: Experiment, plan: Plan, units: Sequence[Unit], tasks: EvaluationRequest, out: Path
) -> Results:
    """Read all units; what is not scored yet is scored."""
    results = [_read(unit, tasks, out) for unit in units]
    return Results(experiment, plan, 1 + max(unit.seed for unit in units), results)


def name_of(score: str) -> str:
    return f"{score} at best/" if score.startswith("dev/") and not score.endswith(AT_END) else score


def digits(score: str) -> int:
    score = score.removesuffix(AT_END)
    return DIGITS.get(score, 3 if score.startswith("dev/") else 2)


def arms_of(results: Results) -> list[str]:
    return [arm.name for arm in results.plan.arms]


def against_of(results: Results, arm: str, against: str, score: str) -> dict[int, float]:
    return results.before(arm, score) if against == BEFORE else results.values(against, score)


def _read(unit: Unit, tasks: EvaluationRequest, out: Path) -> UnitResult:
    run = open_run(unit.folder)
    speeds = [line[SENTENCES_PER_S] for line in run.training if SENTENCES_PER_S in line]
    return UnitResult(
        unit,
        {name: shown(value) for name, value in run.settings.items()},
        "" if run.state == "complete" else _why(unit, run),
        run.step,
        run.before,
        run.best,
        run.last,
        run.evaluations,
        median(speeds) if speeds else math.nan,
        score_run(unit, tasks),
        score_untrained(unit, out, tasks),
    )


def _why(unit: Unit, run: RunFiles) -> str:
    return f"it ended after step {run.step}: {said(unit)}"


def _score(result: UnitResult, score: str) -> float:
    if score.endswith(AT_END):
        return float(result.last.get(score.removesuffix(AT_END), math.nan))
    if score.startswith("dev/"):
        return float(result.best.get(score, math.nan))
    task = result.tasks.get(score)
    return math.nan if task is None or task.score is None else task.score


def _score_before(result: UnitResult, score: str) -> float:
    if score.startswith("dev/"):
        return float(result.before.get(score.removesuffix(AT_END), math.nan))
    task = result.untrained.get(score)
    return math.nan if task is None or task.score is None else task.score


def best_step(result: UnitResult) -> int | None:
    return int(result.best[STEP]) if result.best else None
