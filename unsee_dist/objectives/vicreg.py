"""VICReg: views agree (invariance), each feature varies (variance), features do not repeat (covariance).

    L = s·mean (x − y)²  +  m·½ [v(x) + v(y)]  +  n·[c(x) + c(y)]
    v(z) = mean_i max(0, 1 − √(Cov(z)_ii + 1e-4))
    c(z) = Σ_{i≠j} Cov(z)_ij² / D          Cov(z) = Σ_b (z_b − μ)ᵀ(z_b − μ) / (N − 1)

Bardes, Ponce & LeCun 2022, arXiv:2105.04906, eq. 1-6; the ½ and s = m = 25, n = 1 from the authors' code.
Under an EMA target the terms of y have no gradient; the loss includes them all the same.
Shapes: V pairs of views, whose losses are summed, B sentences on this rank, N over all ranks, D features.
"""

from typing import ClassVar

from torch import Tensor, nn

from unsee_dist.config.objective import VICRegSettings
from unsee_dist.distributed.reduce import Reduction
from unsee_dist.errors import UserError
from unsee_dist.objectives.moments import mean_squared_error, off_diagonal, pairs, scatters
from unsee_dist.objectives.outcome import Outcome, outcome

DEFAULT = VICRegSettings()


class VICReg(nn.Module):
    """`invariance`, `variance`, `covariance` are s, m, n. Needs a global batch of at least 2 (UserError)."""

    symmetric: ClassVar[bool] = True

    def __init__(
        self,
        width: int,
        reduction: Reduction,
        *,
        invariance: float = DEFAULT.invariance,
        variance: float = DEFAULT.variance,
        covariance: float = DEFAULT.covariance,
    ) -> None:
        super().__init__()
        self.width, self.reduction = width, reduction
        self.invariance, self.variance, self.covariance = invariance, variance, covariance

    def forward(self, online: Tensor, target: Tensor) -> Outcome:
        online_VBD, target_VBD = pairs(online, target)
        sentences = online_VBD.shape[1] * self.reduction.size
        if sentences < 2:
            raise UserError("train.batch = 1 has no variance, which VICReg needs. Use at least 2.")
        both = scatters(online_VBD, target_VBD, self.reduction)
        x_VDD, y_VDD = (each.scatter_VDD / (sentences - 1) for each in both)
        return outcome(
            invariance=self.invariance * mean_squared_error(online_VBD, target_VBD),
            variance=self.variance * (_shortfall(x_VDD) + _shortfall(y_VDD)) / 2,
            covariance=self.covariance * (self._redundancy(x_VDD) + self._redundancy(y_VDD)),
        )

    def _redundancy(self, covariance_VDD: Tensor) -> Tensor:
        return off_diagonal(covariance_VDD).square().sum() / self.width


def _shortfall(covariance_VDD: Tensor) -> Tensor:
    """How far the standard deviations of the features fall short of 1, on average, summed over views."""
    deviation_VD = (covariance_VDD.diagonal(dim1=1, dim2=2) + 1e-4).sqrt()
    return (1 - deviation_VD).relu().mean(1).sum()
