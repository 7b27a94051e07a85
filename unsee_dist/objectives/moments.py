"""First and second moments of a view over the global batch, shared by the objectives.

Shapes: B sentences on this rank, N = R·B over all ranks, D features.
"""

import torch
from torch import Tensor

from unsee_dist.distributed.reduce import Reduction


def check_views(online_BD: Tensor, target_BD: Tensor) -> None:
    """Two views of the same sentences in fp32 or float64: low precision never enters an objective."""
    assert online_BD.shape == target_BD.shape, (online_BD.shape, target_BD.shape)
    assert {online_BD.dtype, target_BD.dtype} <= {torch.float32, torch.float64}, (
        online_BD.dtype,
        target_BD.dtype,
    )


def mean(z_BD: Tensor, reduction: Reduction) -> Tensor:
    """(D) mean of the features over the global batch."""
    return reduction.mean(z_BD.mean(0))


def scatter(centred_BD: Tensor, reduction: Reduction) -> Tensor:
    """(D, D) Σ over the global batch of zᵀz, of rows that are already centred (Σz² − Nμ² would cancel)."""
    return reduction.sum(centred_BD.T @ centred_BD)


def off_diagonal(square_DD: Tensor) -> Tensor:
    """The same matrix with zeros on its diagonal."""
    return square_DD - square_DD.diagonal().diag()


def mean_squared_error(online_BD: Tensor, target_BD: Tensor) -> Tensor:
    """Mean over this rank's sentences and the features of (x − y)²."""
    return (online_BD - target_BD).square().mean()
