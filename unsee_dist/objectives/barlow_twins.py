"""Barlow Twins: make the two views' features agree and decorrelate.

    C_ij = mean_b(u_bi v_bj)        u, v: views standardised per feature over the global batch
    L    = Σ_i (1 - C_ii)²  +  λ Σ_{i≠j} C_ij²

Zbontar et al. 2021, arXiv:2103.03230, eq. 1-2; λ and the standardisation (biased variance, ε 1e-5, no affine)
from the authors' main.py. `affine: true` is the code released with UNSEE: one BatchNorm with weight and bias
serves both views.
Shapes: B sentences on this rank, D features.
"""

from typing import ClassVar

from torch import Tensor, nn

from unsee_dist.config.objective import BarlowTwinsSettings
from unsee_dist.distributed.batchnorm import SyncBatchNorm
from unsee_dist.distributed.reduce import Reduction
from unsee_dist.objectives.moments import check_views, off_diagonal
from unsee_dist.objectives.outcome import Outcome, outcome

DEFAULT = BarlowTwinsSettings()


class BarlowTwins(nn.Module):
    """`weight` is λ. With `affine` it has parameters, which train along with the network's."""

    symmetric: ClassVar[bool] = True

    def __init__(
        self,
        width: int,
        reduction: Reduction,
        *,
        weight: float = DEFAULT.weight,
        affine: bool = DEFAULT.affine,
    ) -> None:
        super().__init__()
        self.reduction, self.weight = reduction, weight
        self.standardise = SyncBatchNorm(width, reduction, affine=affine)

    def forward(self, online_BD: Tensor, target_BD: Tensor) -> Outcome:
        check_views(online_BD, target_BD)
        u_BD, v_BD = self.standardise(online_BD), self.standardise(target_BD)
        cross_DD = self.reduction.mean(u_BD.T @ v_BD / len(u_BD))
        return outcome(
            agree=(1 - cross_DD.diagonal()).square().sum(),
            redundancy=self.weight * off_diagonal(cross_DD).square().sum(),
        )
