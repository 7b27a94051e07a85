"""What the cloud of embeddings looks like, from moments that can be summed over pieces and ranks.

    u = z/|z|        n = Σ1        s = Σu        S = Σ u uᵀ        (float64)
    C = S/n − μμᵀ,  μ = s/n,  λ = eigenvalues of C,  largest first

    std            mean_d √C_dd · √D                    1 = isotropic, 0 = every sentence at one point
    std_min        min_d √C_dd · √D                     0 = a dead dimension
    correlation    √ mean_{i≠j} C_ij²/(C_ii C_jj)       0 = uncorrelated dimensions, 1 = copies of one
    effective_rank exp(−Σ p_k log p_k), p = σ/Σσ, σ = √λ      1..D; 0 = one point
    spectrum/k     λ_k / Σλ, k = 1, 2, 4, ... up to D   spectrum/1 = 1: all on one line
    mean_cosine    (|s|² − Σ|u|²) / (n(n−1))            mean over all pairs of different sentences

The effective rank is RankMe's (Garrido et al. 2023, arXiv:2210.02885, eq. 1-2) on centred unit vectors:
without centring, the one direction that all BERT embeddings share would hide everything else.

    alignment      mean_{(x,x⁺)} |u(x) − u(x⁺)|²        pairs that mean the same: 0 = best, 4 = opposite
    uniformity     log mean_{i≠j} exp(−2|u_i − u_j|²)   0 = one point, −4 = the sphere (in high dimensions)

Wang and Isola 2020, arXiv:2005.10242, eq. 3-4. All see directions only, as cosine does, not lengths.
Shapes: N embeddings, D their width.
"""

from dataclasses import dataclass

import numpy as np

from unsee_dist.errors import UserError
from unsee_dist.metrics.cosine import unit_rows
from unsee_dist.metrics.names import CORRELATION, EFFECTIVE_RANK, MEAN_COSINE, SPECTRUM, STD, STD_MIN, part

# Eigenvalues of C sum to at most 1. Those below (1e-6)² are rounding errors of fp32 embeddings, and count as 0: else
# the rounding errors of a collapsed encoder, in all directions, would be a full rank.
ZERO = 1e-12
NAMES = (STD, STD_MIN, CORRELATION, EFFECTIVE_RANK, MEAN_COSINE)


@dataclass(frozen=True)
class Moments:
    """Sums over unit vectors, float64. `a + b` are the moments of both parts together."""

    count: int
    sum_D: np.ndarray
    second_DD: np.ndarray

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.sum_D + other.sum_D, self.second_DD + other.second_DD)


def moments(z_ND: np.ndarray) -> Moments:
    """The moments of some embeddings, of any length and float type."""
    u_ND = unit_rows(z_ND)
    return Moments(len(u_ND), u_ND.sum(axis=0), u_ND.T @ u_ND)


def geometry(of: Moments) -> dict[str, float]:
    """std, std_min, correlation, effective_rank, mean_cosine, spectrum/k; all NaN where a moment is not finite.

    UserError: fewer than two embeddings.
    """
    if of.count < 2:
        raise UserError(f"The geometry of {of.count} embeddings is undefined. Give at least 2 sentences.")
    places = [2**power for power in range(len(of.sum_D).bit_length())]
    if not np.isfinite(of.second_DD).all():
        return dict.fromkeys((*NAMES, *(part(SPECTRUM, place) for place in places)), float("nan"))
    covariance_DD = _covariance(of)
    deviation_D = np.sqrt(np.maximum(covariance_DD.diagonal(), 0))
    eigenvalues_D = _eigenvalues(covariance_DD)
    pairs = of.count * (of.count - 1)
    values = (
        deviation_D.mean() * np.sqrt(len(deviation_D)),
        deviation_D.min() * np.sqrt(len(deviation_D)),
        _correlation(covariance_DD, deviation_D),
        _effective_rank(eigenvalues_D),
        (of.sum_D @ of.sum_D - of.second_DD.trace()) / pairs,
    )
    total = eigenvalues_D.sum() or 1.0  # of one point, every share is 0
    shares = {part(SPECTRUM, place): float(eigenvalues_D[place - 1] / total) for place in places}
    return {name: float(value) for name, value in zip(NAMES, values, strict=True)} | shares


def alignment(first_ND: np.ndarray, second_ND: np.ndarray) -> float:
    """Of N pairs that mean the same; embeddings of any length."""
    return float(np.square(unit_rows(first_ND) - unit_rows(second_ND)).sum(axis=1).mean())


def uniformity(z_ND: np.ndarray) -> float:
    """Over all pairs of N embeddings of any length: N² numbers at once."""
    u_ND = unit_rows(z_ND)
    squares_NN = 2 - 2 * (u_ND @ u_ND.T)
    return float(np.log(np.exp(-2 * squares_NN[~np.eye(len(u_ND), dtype=bool)]).mean()))


def _covariance(of: Moments) -> np.ndarray:
    mean_D = of.sum_D / of.count
    return of.second_DD / of.count - np.outer(mean_D, mean_D)


def _eigenvalues(covariance_DD: np.ndarray) -> np.ndarray:
    """Largest first; what is rounding is 0."""
    eigenvalues_D = np.linalg.eigvalsh(covariance_DD)[::-1]
    return np.where(eigenvalues_D > ZERO, eigenvalues_D, 0)


def _correlation(covariance_DD: np.ndarray, deviation_D: np.ndarray) -> float:
    live = deviation_D**2 > ZERO  # a dead dimension correlates with nothing
    if live.sum() < 2:
        return 0.0
    correlation_DD = covariance_DD[np.ix_(live, live)] / np.outer(deviation_D[live], deviation_D[live])
    return float(np.sqrt(np.square(correlation_DD[~np.eye(live.sum(), dtype=bool)]).mean()))


def _effective_rank(eigenvalues_D: np.ndarray) -> float:
    singular = np.sqrt(eigenvalues_D[eigenvalues_D > 0])
    if len(singular) == 0:
        return 0.0
    share = singular / singular.sum()
    return float(np.exp(-np.sum(share * np.log(share))))
