"""Retrieval without labels: does a query find its own answer among all answers of the file?

    rank_i   = number of answers a with cos(q_i, a) ≥ cos(q_i, a_i)     (its own included: 1 is best)
    mrr      = mean_i 1/rank_i          recall_at_1 = share of rank_i = 1

Ties count against the encoder, so an encoder that maps everything to one point scores 1/candidates and
not 1. Candidates are the distinct answers of the file. Shapes: N queries, A answers, D width.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from unsee_dist.errors import UserError
from unsee_dist.metrics.cosine import unit_rows
from unsee_dist.metrics.names import CANDIDATES, MRR, RECALL_AT_1, part
from unsee_dist.metrics.sts import Encode

BLOCK = 1024  # queries at once: 1,024 x 100,000 answers in float64 is 0.8 GB
TIE = 1e-9  # the cosines of equal vectors differ by about 1e-15, depending on where in a block they are


class Questions(NamedTuple):
    """Queries, the distinct answers, and for each query the index of its answer."""

    queries: list[str]
    answers: list[str]
    own: np.ndarray

    @property
    def candidates(self) -> int:
        """Answers each query chooses from."""
        return len(self.answers)


def make_questions(pairs: list[tuple[str, str]], source: str) -> Questions:
    """From (query, answer) pairs; equal answers become one candidate."""
    index: dict[str, int] = {}
    own = np.array([index.setdefault(answer, len(index)) for _, answer in pairs], dtype=np.int64)
    if len(index) < 2:
        raise UserError(
            f"{source} has fewer than two different answers, so any encoder is right. Give pairs with different answers."
        )
    return Questions([query for query, _ in pairs], list(index), own)


def retrieval_scores(questions: Questions, encode: Encode) -> dict[str, float]:
    """mrr and recall_at_1 (shares, 0 to 1) and candidates; NaN where embeddings are not finite."""
    unique = list(dict.fromkeys(questions.queries + questions.answers))
    return retrieval_scores_of(questions, dict(zip(unique, encode(unique), strict=True)))


def set_scores(sets: Mapping[str, Questions], embeddings: Mapping[str, np.ndarray]) -> dict[str, float]:
    """mrr and recall_at_1 as means of the sets, candidates of the smallest; of several also each with /NAME."""
    by_name = {name: retrieval_scores_of(questions, embeddings) for name, questions in sets.items()}
    means = {key: float(np.mean([scores[key] for scores in by_name.values()])) for key in (MRR, RECALL_AT_1)}
    means[CANDIDATES] = min(scores[CANDIDATES] for scores in by_name.values())
    if len(sets) == 1:
        return means
    return means | {
        part(key, name): value for name, scores in by_name.items() for key, value in scores.items()
    }


def retrieval_scores_of(questions: Questions, embeddings: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`retrieval_scores` from the embeddings of all queries and answers, by sentence."""
    query_ND = unit_rows(np.stack([embeddings[query] for query in questions.queries]))
    answer_AD = unit_rows(np.stack([embeddings[answer] for answer in questions.answers]))
    if not (np.isfinite(query_ND).all() and np.isfinite(answer_AD).all()):
        return {MRR: float("nan"), RECALL_AT_1: float("nan"), CANDIDATES: float(questions.candidates)}
    return _scores(questions, (query_ND[block] @ answer_AD.T for block in _blocks(len(query_ND))))


def tfidf_scores(questions: Questions) -> dict[str, float]:
    """The baseline that needs no training: TF-IDF cosine on the same questions."""
    from unsee_dist.metrics.tfidf import word_counts

    counts = word_counts(questions.queries + questions.answers)
    query_NV, answer_AV = counts.transform(questions.queries), counts.transform(questions.answers)
    return _scores(
        questions, ((query_NV[block] @ answer_AV.T).toarray() for block in _blocks(len(questions.queries)))
    )


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def _scores(questions: Questions, cosines: Iterator[np.ndarray]) -> dict[str, float]:
    ranks: list[np.ndarray] = []
    start = 0
    for cosine_BA in cosines:
        own_B = questions.own[start : start + len(cosine_BA)]
        own_cosine_B1 = np.take_along_axis(cosine_BA, own_B[:, None], axis=1)
        ranks.append(np.sum(cosine_BA >= own_cosine_B1 - TIE, axis=1))
        start += len(cosine_BA)
    rank_N = np.concatenate(ranks)
    return {
        MRR: float(np.mean(1 / rank_N)),
        RECALL_AT_1: float(np.mean(rank_N == 1)),
        CANDIDATES: float(questions.candidates),
    }
