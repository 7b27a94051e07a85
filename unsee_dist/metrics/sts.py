"""Semantic textual similarity: do cosines order sentence pairs as people do?

    sts = 100 · ρ( cos(z¹_i, z²_i), score_i )        ρ: Spearman over all pairs of the set

All pairs at once, as SimCSE and MTEB do; ties get their mean rank. NaN when the embeddings are collapsed.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from unsee_dist.metrics.cosine import collapsed, unit_rows

# (n sentences) -> (n, D); in a run collective: all ranks call it at once
Encode = Callable[[list[str]], np.ndarray]


class Pairs(NamedTuple):
    """Sentence pairs and the similarity people gave them (any scale; float64)."""

    first: list[str]
    second: list[str]
    scores: np.ndarray


def spearman(pairs: Pairs, encode: Encode) -> float:
    """Spearman x 100 of the pairs' cosines against their scores; NaN when collapsed."""
    unique = list(dict.fromkeys(pairs.first + pairs.second))
    return spearman_of(pairs, dict(zip(unique, encode(unique), strict=True)))


def spearman_of(pairs: Pairs, embeddings: Mapping[str, np.ndarray]) -> float:
    """`spearman` from the embeddings of all sentences of the pairs, by sentence."""
    first_ND = unit_rows(np.stack([embeddings[sentence] for sentence in pairs.first]))
    second_ND = unit_rows(np.stack([embeddings[sentence] for sentence in pairs.second]))
    if collapsed(np.concatenate([first_ND, second_ND])):
        return float("nan")
    cosines_N = np.sum(first_ND * second_ND, axis=1)
    if np.ptp(cosines_N) < 1e-12:  # all equal: no order to compare
        return float("nan")
    from scipy.stats import spearmanr  # 500 modules, which a run without STS does not need

    return 100 * float(spearmanr(cosines_N, pairs.scores).statistic)
