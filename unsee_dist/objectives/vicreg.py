"""VICReg: views agree (invariance), each feature varies (variance), features do not repeat (covariance).

    L = s·mean (x − y)²  +  m·½ [v(x) + v(y)]  +  n·[c(x) + c(y)]
    v(z) = mean_i max(0, 1 − √(Cov(z)_ii + 1e-4))
    c(z) = Σ_{i≠j} Cov(z)_ij² / D          Cov(z) = Σ_b (z_b − μ)ᵀ(z_b − μ) / (N − 1)

Bardes, Ponce & LeCun 2022, arXiv:2105.04906, eq. 1-6; the ½ and s = m = 25, n = 1 from the authors' code.
Under an EMA target the terms of y have no gradient; the loss includes them all the same.
Shapes: B sentences on this rank, N over all ranks, D features.
"""

from typing import ClassVar

from torch import Tensor, nn

from unsee_dist.config.objective import VICRegSettings
from unsee_dist.distributed.reduce import Reduction
from unsee_dist.errors import UserError
from unsee_dist.objectives.moments import check_views, mean, mean_squared_error, off_diagonal, scatter
from unsee_dist.objectives.outcome import Outcome, outcome

DEFAULT = VICRegSettings()


class VICReg(nn.Module):
    """`invariance`, `variance`, `covariance` are s, m, n. Needs a global batch of at least 2 (ValueError)."""

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

    def forward(self, online_BD: Tensor, target_BD: Tensor) -> Outcome:
        check_views(online_BD, target_BD)
        x_DD, y_DD = self._covariance_of(online_BD), self._covariance_of(target_BD)
        return outcome(
            invariance=self.invariance * mean_squared_error(online_BD, target_BD),
            variance=self.variance * (_shortfall(x_DD) + _shortfall(y_DD)) / 2,
            covariance=self.covariance * (self._redundancy(x_DD) + self._redundancy(y_DD)),
        )

    def _covariance_of(self, z_BD: Tensor) -> Tensor:
        sentences = len(z_BD) * self.reduction.size
        if sentences < 2:
            raise UserError("train.batch = 1 has no variance, which VICReg needs. Use at least 2.")
        return scatter(z_BD - mean(z_BD, self.reduction), self.reduction) / (sentences - 1)

    def _redundancy(self, covariance_DD: Tensor) -> Tensor:
        return off_diagonal(covariance_DD).square().sum() / self.width


def _shortfall(covariance_DD: Tensor) -> Tensor:
    """How far the standard deviations of the features fall short of 1, on average."""
    return (1 - (covariance_DD.diagonal() + 1e-4).sqrt()).relu().mean()
