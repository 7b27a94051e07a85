"""Unit vectors and the collapse they can hide.

    u = z / |z|        in float64; the zero vector stays zero

Shapes: N embeddings, D their width.
"""

import numpy as np

# Below this the embeddings differ by little more than the rounding of fp32 (about 1e-7 a number, times
# the sums of an encoder): an order of such cosines is an order of rounding errors. Scale: `relative_std`.
CONSTANT = 1e-4


def unit_rows(z_ND: np.ndarray) -> np.ndarray:
    """Rows divided by their length, float64."""
    z_ND = np.asarray(z_ND, dtype=np.float64)
    # Divided by the largest entry first: the square of 1e-200 is 0, and its length would be too.
    largest_N1 = np.max(np.abs(z_ND), axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # inf / inf is NaN, which every caller looks for
        z_ND = z_ND / np.where(largest_N1 == 0, 1, largest_N1)
    length_N1 = np.linalg.norm(z_ND, axis=1, keepdims=True)
    return z_ND / np.where(length_N1 == 0, 1, length_N1)


def relative_std(u_ND: np.ndarray) -> float:
    """Mean over dimensions of the std of unit vectors, times √D: 1 = isotropic, 0 = one point."""
    return float(u_ND.std(axis=0).mean() * np.sqrt(u_ND.shape[1]))


def collapsed(u_ND: np.ndarray) -> bool:
    """Whether unit vectors are one point (to rounding) or not finite: they cannot be used."""
    return not np.isfinite(u_ND).all() or relative_std(u_ND) < CONSTANT
