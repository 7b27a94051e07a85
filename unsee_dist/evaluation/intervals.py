"""Is one encoder better than another on these pairs, or on pairs like these? The paired bootstrap.

    d   = mean_s ρ(a_s, y) − mean_s ρ(b_s, y)               a_s, b_s: cosines of seed s; y: people's scores
    d*  = the same on N pairs drawn with replacement, one draw for both encoders and all seeds
    interval = the 2.5% and 97.5% quantiles of d*            Efron and Tibshirani 1993, ch. 13

Both are evaluated on the same draws: a pair that is hard for both cancels. All × 100, as STS scores are.

Do runs that differ only in their seed agree on it? Student's interval, of differences seed by seed:

    mean(g) ± t_{0.975, S−1} · std(g)/√S                    g_s: the difference under seed s; std with S − 1

Shapes: S seeds, N pairs, K draws.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata, t

DRAWS = 1000


class ScoreDifference(NamedTuple):
    """A score of a minus the same of b, and its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """better, worse, or that the interval holds 0."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "no difference to be seen"


def over_seeds(gaps_S: Sequence[float]) -> ScoreDifference | None:
    """The mean of what each seed gives; None of fewer than two seeds, which say nothing about others."""
    if len(gaps_S) < 2:
        return None
    mean, half = float(np.mean(gaps_S)), half_width(gaps_S)
    return ScoreDifference(mean, mean - half, mean + half)


def half_width(values_S: Sequence[float]) -> float:
    """Of Student's 95% interval about the mean of at least two values."""
    return float(t.ppf(0.975, len(values_S) - 1) * np.std(values_S, ddof=1) / np.sqrt(len(values_S)))


def paired_difference(a_SN: np.ndarray, b_SN: np.ndarray, y_N: np.ndarray, seed: int = 0) -> ScoreDifference:
    """The difference of two encoders (or of their means over seeds) on the same N pairs."""
    draws_KN = np.random.default_rng(seed).integers(0, len(y_N), size=(DRAWS, len(y_N)))
    gaps_K = _mean_spearman(a_SN, y_N, draws_KN) - _mean_spearman(b_SN, y_N, draws_KN)
    all_1N = np.arange(len(y_N))[None]
    value = _mean_spearman(a_SN, y_N, all_1N) - _mean_spearman(b_SN, y_N, all_1N)
    low, high = np.quantile(gaps_K, [0.025, 0.975])
    return ScoreDifference(float(value[0]), float(low), float(high))


def _mean_spearman(x_SN: np.ndarray, y_N: np.ndarray, draws_KN: np.ndarray) -> np.ndarray:
    y_KN = _standardised_ranks(y_N[draws_KN])
    return 100 * np.mean([(_standardised_ranks(x_N[draws_KN]) * y_KN).mean(axis=1) for x_N in x_SN], axis=0)


def _standardised_ranks(x_KN: np.ndarray) -> np.ndarray:
    ranks_KN = rankdata(x_KN, axis=1)
    ranks_KN -= ranks_KN.mean(axis=1, keepdims=True)
    deviation_K1 = ranks_KN.std(axis=1, keepdims=True)
    return ranks_KN / np.where(deviation_K1 == 0, 1, deviation_K1)
