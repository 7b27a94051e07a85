"""One call evaluates everything configured, on all ranks together.

Every distinct sentence is encoded once. Sentences are sorted by length (less padding) and dealt like cards: rank r gets
every R-th, so that all ranks get the same lengths. The last one is repeated until every rank encodes equally many. The
embeddings are gathered; then every rank computes the same numbers.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from unsee_dist.errors import UserError
from unsee_dist.metrics.cosine import collapsed, unit_rows
from unsee_dist.metrics.geometry import alignment, geometry, moments, uniformity
from unsee_dist.metrics.names import (
    ALIGNMENT,
    CANDIDATES,
    COLLAPSED,
    MRR,
    RECALL_AT_1,
    STS,
    UNIFORMITY,
    dev,
    part,
)
from unsee_dist.metrics.retrieval import Questions, set_scores, tfidf_scores
from unsee_dist.metrics.sts import Encode, Pairs, spearman_of
from unsee_dist.metrics.verdict import below_baseline, collapse

Gather = Callable[[np.ndarray], np.ndarray]  # (n, D) of this rank -> (R·n, D), rank by rank

ALIKE = 0.8  # of the highest score: pairs that mean the same, as SimCSE measures alignment on STS-B
PROBE = 1024  # sentences of the corpus whose geometry is measured


def gather_alone(rows: np.ndarray) -> np.ndarray:
    """The gather of a single rank."""
    return rows


class Development:
    """The development score of a run: `Development(...)(encode)` on every rank, at the same step.

    sts, retrieval: sets of pairs and of questions by name; either may be empty. probe: the corpus's first
    sentences (at least 2, the first 1,024 are used). gather: rows of all ranks in rank order. The result is the
    same on every rank when the machines are alike; rank 0's decides which checkpoint is best.

    Its names are those of EVALUATION in metrics/names.py: dev/sts and dev/alignment with `sts`; dev/mrr,
    dev/recall_at_1 and dev/candidates with `retrieval`; always dev/uniformity, the geometry and dev/collapsed.
    """

    def __init__(
        self,
        sts: Mapping[str, Pairs],
        retrieval: Mapping[str, Questions],
        probe: list[str],
        rank: int = 0,
        size: int = 1,
        gather: Gather = gather_alone,
    ) -> None:
        self.sts, self.retrieval, self.probe = sts, retrieval, probe[:PROBE]
        self.gather = gather
        if len(self.probe) < 2:
            raise UserError(f"The corpus has {len(self.probe)} sentences; evaluation needs at least 2.")
        used = list(self.probe)
        for pairs in sts.values():
            used += pairs.first + pairs.second
        for questions in retrieval.values():
            used += questions.queries + questions.answers
        self.sentences = sorted(dict.fromkeys(used), key=len, reverse=True)
        self.mine, self.all = deal(len(self.sentences), rank, size)

    def __call__(self, encode: Encode) -> dict[str, float]:
        rows = self.gather(encode([self.sentences[i] for i in self.mine]))
        assert len(rows) == len(self.all), f"gathered {len(rows)} rows, dealt {len(self.all)}"
        embeddings = {self.sentences[i]: row for i, row in zip(self.all, rows, strict=True)}
        scores: dict[str, float] = {}
        if self.sts:
            scores |= sts_scores(self.sts, embeddings)
        if self.retrieval:
            scores |= set_scores(self.retrieval, embeddings)
        probe_ND = np.stack([embeddings[sentence] for sentence in self.probe])
        scores |= geometry(moments(probe_ND)) | {UNIFORMITY: uniformity(probe_ND)}
        scores[COLLAPSED] = float(collapsed(unit_rows(probe_ND)) or collapsed(unit_rows(rows)))
        return {dev(name): value for name, value in scores.items()}

    def baseline(self) -> dict[str, float]:
        """The scores of TF-IDF on the sets."""
        return tfidf_baseline(self.sts, self.retrieval)


def tfidf_baseline(sts: Mapping[str, Pairs], retrieval: Mapping[str, Questions]) -> dict[str, float]:
    """The scores of TF-IDF, fitted on each set's own texts, under the names of an evaluation."""
    scores: dict[str, float] = {}
    if sts:
        # scikit-learn: two seconds, needed at the end of a run only
        from unsee_dist.metrics import tfidf

        scores[STS] = float(np.mean([tfidf.tfidf_spearman(pairs) for pairs in sts.values()]))
    if retrieval:
        by_set = [tfidf_scores(questions) for questions in retrieval.values()]
        scores |= {name: float(np.mean([of_set[name] for of_set in by_set])) for name in (MRR, RECALL_AT_1)}
        scores[CANDIDATES] = min(of_set[CANDIDATES] for of_set in by_set)
    return {dev(name): value for name, value in scores.items()}


def warnings(scores: Mapping[str, float], baseline: Mapping[str, float]) -> list[str]:
    """The warnings about the last scores of a run: unusable embeddings, or a score below the TF-IDF baseline."""
    if collapsed_how := collapse(scores):
        return [f"{collapsed_how}: the encoder cannot be used, even if its scores look good"]
    return below_baseline(scores, baseline)


def sts_scores(sets: Mapping[str, Pairs], embeddings: Mapping[str, np.ndarray]) -> dict[str, float]:
    """sts, of several sets sts/NAME, and alignment where pairs score at least 4/5 of their set's highest."""
    by_name = {name: spearman_of(pairs, embeddings) for name, pairs in sets.items()}
    scores = {STS: float(np.mean(list(by_name.values())))}
    if len(sets) > 1:
        scores |= {part(STS, name): value for name, value in by_name.items()}
    alike = [
        (first, second)
        for pairs in sets.values()
        for first, second, score in zip(*pairs, strict=True)
        if score >= ALIKE * pairs.scores.max()
    ]
    first_ND, second_ND = (np.stack([embeddings[pair[side]] for pair in alike]) for side in (0, 1))
    return scores | {ALIGNMENT: alignment(first_ND, second_ND)}


def deal(count: int, rank: int, size: int) -> tuple[list[int], list[int]]:
    """This rank's sentence numbers, and those of all ranks in rank order (as `gather` returns them)."""
    each = math.ceil(count / size)
    parts = [[min(i, count - 1) for i in range(r, each * size, size)] for r in range(size)]
    return parts[rank], [number for part in parts for number in part]
