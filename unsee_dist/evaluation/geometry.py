"""What the cloud of embeddings looks like, from moments that can be summed over pieces and ranks.

    u = z/|z|        n = Σ1        s = Σu        S = Σ u uᵀ        (float64)
    C = S/n − μμᵀ,  μ = s/n

    std            mean_d √C_dd · √D                    1 = isotropic, 0 = every sentence at one point
    effective_rank exp(−Σ p_k log p_k), p = σ/Σσ, σ = √eigenvalues of C      1..D; 0 = one point
    mean_cosine    (|s|² − Σ|u|²) / (n(n−1))            mean over all pairs of different sentences

The effective rank is RankMe's (Garrido et al. 2023, arXiv:2210.02885, eq. 1-2) on centred unit vectors:
without centring, the one direction that all BERT embeddings share would hide everything else.
All three see directions only, as cosine does; the length of embeddings does not enter.
Shapes: N embeddings, D their width.
"""

from dataclasses import dataclass

import numpy as np

from unsee_dist.evaluation.cosine import unit_rows

# Eigenvalues of C sum to at most 1. Under (1e-6)² lies the rounding of fp32 embeddings: read as exactly 0,
# or a collapsed encoder's rounding errors, which point everywhere, would count as a full rank.
FLOOR = 1e-12


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
    """std, effective_rank and mean_cosine; all NaN when a number in the moments is not finite.

    Raises ValueError for fewer than two embeddings.
    """
    if of.count < 2:
        raise ValueError(f"The geometry of {of.count} embeddings is undefined. Give at least 2 sentences.")
    if not np.isfinite(of.second_DD).all():
        return dict.fromkeys(("std", "effective_rank", "mean_cosine"), float("nan"))
    mean_D = of.sum_D / of.count
    covariance_DD = of.second_DD / of.count - np.outer(mean_D, mean_D)
    variance_D = np.maximum(covariance_DD.diagonal(), 0)
    pairs = of.count * (of.count - 1)
    return {
        "std": float(np.sqrt(variance_D).mean() * np.sqrt(len(variance_D))),
        "effective_rank": _effective_rank(np.linalg.eigvalsh(covariance_DD)),
        "mean_cosine": float((of.sum_D @ of.sum_D - of.second_DD.trace()) / pairs),
    }


def _effective_rank(eigenvalues_D: np.ndarray) -> float:
    singular = np.sqrt(eigenvalues_D[eigenvalues_D > FLOOR])
    if len(singular) == 0:
        return 0.0
    share = singular / singular.sum()
    return float(np.exp(-np.sum(share * np.log(share))))
