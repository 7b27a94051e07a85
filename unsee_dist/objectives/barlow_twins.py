"""Barlow Twins: make the two views' features agree and decorrelate.

    C_ij = mean_b(u_bi v_bj)        u, v: views standardised per feature over the global batch
         = Σ_b (x_bi − μ_i)(y_bj − ν_j) / N / √((Var(x_i) + ε)(Var(y_j) + ε))
    L    = Σ_i (1 - C_ii)²  +  λ Σ_{i≠j} C_ij²

Zbontar et al. 2021, arXiv:2103.03230, eq. 1-2; λ and the standardisation (biased variance, ε 1e-5, no affine)
from the authors' main.py. `affine: true` is the code released with UNSEE: one BatchNorm with weight w and bias c
serves both views, whose C_ij is then w_i w_j C_ij + c_i c_j, since standardised features have mean 0.
Shapes: V pairs of views, whose losses are summed, B sentences on this rank, D features.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from unsee_dist.config.objective import BARLOW_TWINS_WEIGHT, BarlowTwinsSettings
from unsee_dist.distributed.reduce import Reduction
from unsee_dist.objectives.moments import Cross, cross, off_diagonal, pairs
from unsee_dist.objectives.outcome import Outcome, outcome

DEFAULT = BarlowTwinsSettings()
EPS = 1e-5


class BarlowTwins(nn.Module):
    """`weight` is λ. With `affine` it has parameters, which train along with the network's."""

    symmetric: ClassVar[bool] = True

    def __init__(
        self,
        width: int,
        reduction: Reduction,
        *,
        weight: float = BARLOW_TWINS_WEIGHT,
        affine: bool = DEFAULT.affine,
    ) -> None:
        super().__init__()
        self.reduction, self.weight = reduction, weight
        self.standardise = _Standardise(width, affine)

    def forward(self, online: Tensor, target: Tensor) -> Outcome:
        online_VBD, target_VBD = pairs(online, target)
        sentences = online_VBD.shape[1] * self.reduction.size
        cross_VDD = self.standardise(cross(online_VBD, target_VBD, self.reduction), sentences)
        return outcome(
            agree=(1 - cross_VDD.diagonal(dim1=1, dim2=2)).square().sum(),
            redundancy=self.weight * off_diagonal(cross_VDD).square().sum(),
        )


class _Standardise(nn.Module):
    """C of standardised views from the sums of plain ones."""

    def __init__(self, width: int, affine: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine else None

    def forward(self, sums: Cross, sentences: int) -> Tensor:
        x_VD, y_VD = ((square_VD / sentences + EPS).rsqrt() for square_VD in sums[:2])
        if self.weight is not None:
            x_VD, y_VD = x_VD * self.weight, y_VD * self.weight
        cross_VDD = sums.cross_VDD / sentences * x_VD[:, :, None] * y_VD[:, None]
        if self.bias is not None:
            bias_D = self.bias.to(x_VD.dtype)
            cross_VDD = cross_VDD + bias_D[:, None] * bias_D
        return cross_VDD
