"""One call evaluates everything configured, spread over the ranks.

Every distinct sentence is encoded once. Sentences are sorted by length (less padding), dealt out like
cards (rank r gets every R-th, so that all ranks get the same lengths), padded by repeating the last one so
that every rank encodes equally many, and gathered; then every rank computes the same numbers.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from unsee_dist.errors import UserError
from unsee_dist.metrics.cosine import collapsed, unit_rows
from unsee_dist.metrics.geometry import alignment, geometry, moments, uniformity
from unsee_dist.metrics.retrieval import Questions, set_scores, tfidf_scores
from unsee_dist.metrics.sts import Pairs, spearman_of

Encode = Callable[[list[str]], np.ndarray]  # (n sentences) -> (n, D); collective: all ranks call it at once
Gather = Callable[[np.ndarray], np.ndarray]  # (n, D) of this rank -> (R·n, D), rank by rank

ALIKE = 0.8  # of the highest score: pairs that mean the same, as SimCSE measures alignment on STS-B
PROBE = 1024  # sentences of the corpus whose geometry is watched


def alone(rows: np.ndarray) -> np.ndarray:
    """The gather of a single rank."""
    return rows


class Development:
    """The development score of a run: `Development(...)(encode)` on every rank, at the same step.

    sts, retrieval: sets of pairs and of questions by name; either may be empty. probe: the corpus's first
    sentences (at least 2, the first 1,024 are used). gather: rows of all ranks in rank order. The result is the
    same on every rank when the machines are alike; let rank 0 decide what hangs on it (which checkpoint is best).

    Keys, those configured only: dev/sts (Spearman x 100, the mean of the sets, NaN when collapsed), of several
    sets dev/sts/NAME too, dev/alignment (of the pairs that score at least 4 of 5), dev/mrr, dev/recall_at_1,
    dev/candidates (of several sets, too, each with /NAME); and always dev/uniformity, the geometry (see
    geometry.py) and dev/collapsed (1 when all embeddings are one point or not finite, else 0).
    """

    def __init__(
        self,
        sts: Mapping[str, Pairs],
        retrieval: Mapping[str, Questions],
        probe: list[str],
        rank: int = 0,
        size: int = 1,
        gather: Gather = alone,
    ) -> None:
        self.sts, self.retrieval, self.probe = sts, retrieval, probe[:PROBE]
        self.gather = gather
        if len(self.probe) < 2:
            raise UserError(f"The corpus has {len(self.probe)} sentences; evaluation needs at least 2.")
        used = list(self.probe)
        for pairs in sts.values():
            used += pairs.first + pairs.second
        for asked in retrieval.values():
            used += asked.queries + asked.answers
        self.sentences = sorted(dict.fromkeys(used), key=len, reverse=True)
        self.part, self.dealt = deal(len(self.sentences), rank, size)

    def __call__(self, encode: Encode) -> dict[str, float]:
        rows = self.gather(encode([self.sentences[i] for i in self.part]))
        assert len(rows) == len(self.dealt), f"gathered {len(rows)} rows, dealt {len(self.dealt)}"
        embeddings = {self.sentences[i]: row for i, row in zip(self.dealt, rows, strict=True)}
        scores: dict[str, float] = {}
        if self.sts:
            scores |= sts_scores(self.sts, embeddings)
        if self.retrieval:
            scores |= set_scores(self.retrieval, embeddings)
        probe_ND = np.stack([embeddings[sentence] for sentence in self.probe])
        scores |= geometry(moments(probe_ND)) | {"uniformity": uniformity(probe_ND)}
        scores["collapsed"] = float(collapsed(unit_rows(probe_ND)) or collapsed(unit_rows(rows)))
        return {f"dev/{name}": value for name, value in scores.items()}

    def baseline(self) -> dict[str, float]:
        """What counting words scores, TF-IDF fitted on each set's own texts: dev/sts, dev/mrr and what goes with it."""
        found: dict[str, float] = {}
        if self.sts:
            # scikit-learn: two seconds that only the end of such a run needs
            from unsee_dist.metrics import tfidf

            found["sts"] = float(np.mean([tfidf.tfidf_spearman(pairs) for pairs in self.sts.values()]))
        if self.retrieval:
            by_name = [tfidf_scores(asked) for asked in self.retrieval.values()]
            found |= {name: float(np.mean([one[name] for one in by_name])) for name in ("mrr", "recall_at_1")}
            found["candidates"] = min(one["candidates"] for one in by_name)
        return {f"dev/{name}": value for name, value in found.items()}


def verdicts(scores: Mapping[str, float], baseline: Mapping[str, float]) -> list[str]:
    """What must be said beside the last scores of a run: that they are none, or lose against counting words."""
    if scores.get("dev/collapsed"):
        state = "one point" if math.isfinite(scores["dev/std"]) else "not finite"
        return [f"the embeddings of all sentences are {state}: of no use, whatever they score"]
    return [
        f"{name} {scores[name]:.4g} is below TF-IDF ({baseline[name]:.4g}), which only counts words"
        for name in ("dev/sts", "dev/mrr")
        if name in baseline and name in scores and scores[name] < baseline[name]
    ]


def sts_scores(sets: Mapping[str, Pairs], embeddings: Mapping[str, np.ndarray]) -> dict[str, float]:
    """sts, of several sets sts/NAME, and alignment where pairs score at least 4/5 of their set's highest."""
    by_name = {name: spearman_of(pairs, embeddings) for name, pairs in sets.items()}
    scores = {"sts": float(np.mean(list(by_name.values())))}
    if len(sets) > 1:
        scores |= {f"sts/{name}": value for name, value in by_name.items()}
    alike = [
        (first, second)
        for pairs in sets.values()
        for first, second, score in zip(*pairs, strict=True)
        if score >= ALIKE * pairs.scores.max()
    ]
    first_ND, second_ND = (np.stack([embeddings[pair[side]] for pair in alike]) for side in (0, 1))
    return scores | {"alignment": alignment(first_ND, second_ND)}


def deal(count: int, rank: int, size: int) -> tuple[list[int], list[int]]:
    """This rank's sentence numbers, and those of all ranks in rank order (as `gather` returns them)."""
    each = math.ceil(count / size)
    parts = [[min(i, count - 1) for i in range(r, each * size, size)] for r in range(size)]
    return parts[rank], [number for part in parts for number in part]
