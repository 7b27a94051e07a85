"""One call evaluates everything configured, spread over the ranks.

Every distinct sentence is encoded once. Sentences are sorted by length (less padding), dealt out like
cards (rank r gets every R-th, so that all ranks get the same lengths), padded by repeating the last one so
that every rank encodes equally many, and gathered; then every rank computes the same numbers.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from unsee_dist.evaluation.cosine import collapsed, unit_rows
from unsee_dist.evaluation.geometry import geometry, moments
from unsee_dist.evaluation.retrieval import Questions, retrieval_scores_of
from unsee_dist.evaluation.sts import Pairs, spearman_of

Encode = Callable[[list[str]], np.ndarray]  # (n sentences) -> (n, D); collective: all ranks call it at once
Gather = Callable[[np.ndarray], np.ndarray]  # (n, D) of this rank -> (R·n, D), rank by rank

PROBE = 1024  # sentences of the corpus whose geometry is watched


def alone(rows: np.ndarray) -> np.ndarray:
    """The gather of a single rank."""
    return rows


class Development:
    """The development score of a run: `Development(...)(encode)` on every rank, at the same step.

    sts, retrieval: what to score, or None. probe: the corpus's first sentences (at least 2, the first
    1,024 are used). gather: rows of all ranks in rank order. The result is the same on every rank when the
    machines are alike; let rank 0 decide what hangs on it (which checkpoint is best).

    Keys, those configured only: dev/sts (Spearman x 100, NaN when collapsed), dev/mrr, dev/recall_at_1,
    dev/candidates; and always dev/std, dev/effective_rank, dev/mean_cosine (see geometry.py) and
    dev/collapsed (1 when all embeddings are one point or not finite, else 0).
    """

    def __init__(
        self,
        sts: Pairs | None,
        retrieval: Questions | None,
        probe: list[str],
        rank: int = 0,
        size: int = 1,
        gather: Gather = alone,
    ) -> None:
        self.sts, self.retrieval, self.probe = sts, retrieval, probe[:PROBE]
        self.gather = gather
        if len(self.probe) < 2:
            raise ValueError(f"The corpus has {len(self.probe)} sentences; evaluation needs at least 2.")
        used = list(self.probe)
        if sts is not None:
            used += sts.first + sts.second
        if retrieval is not None:
            used += retrieval.queries + retrieval.answers
        self.sentences = sorted(dict.fromkeys(used), key=len, reverse=True)
        self.part, self.dealt = deal(len(self.sentences), rank, size)

    def __call__(self, encode: Encode) -> dict[str, float]:
        rows = self.gather(encode([self.sentences[i] for i in self.part]))
        assert len(rows) == len(self.dealt), f"gathered {len(rows)} rows, dealt {len(self.dealt)}"
        embeddings = {self.sentences[i]: row for i, row in zip(self.dealt, rows, strict=True)}
        scores: dict[str, float] = {}
        if self.sts is not None:
            scores["sts"] = spearman_of(self.sts, embeddings)
        if self.retrieval is not None:
            scores |= retrieval_scores_of(self.retrieval, embeddings)
        probe_ND = np.stack([embeddings[sentence] for sentence in self.probe])
        scores |= geometry(moments(probe_ND))
        scores["collapsed"] = float(collapsed(unit_rows(probe_ND)) or collapsed(unit_rows(rows)))
        return {f"dev/{name}": value for name, value in scores.items()}


def deal(count: int, rank: int, size: int) -> tuple[list[int], list[int]]:
    """This rank's sentence numbers, and those of all ranks in rank order (as `gather` returns them)."""
    each = math.ceil(count / size)
    parts = [[min(i, count - 1) for i in range(r, each * size, size)] for r in range(size)]
    return parts[rank], [number for part in parts for number in part]


def best_metric(scores: Mapping[str, float]) -> tuple[str, float] | None:
    """What decides which checkpoint is best: dev/sts where configured, else dev/mrr. NaN is never best."""
    for name in ("dev/sts", "dev/mrr"):
        if name in scores:
            return None if math.isnan(scores[name]) else (name, scores[name])
    return None
