"""CorInfoMax: keep the volume of each view's running covariance while the views agree.

    μ ← λμ + (1−λ) mean_b z_b          R ← λR + (1−λ) mean_b (z_b − μ)ᵀ(z_b − μ)      (about the new μ)
    L = w_inv · mean (x − y)²  −  w_cov · [log det(R₁ + εI) + log det(R₂ + εI)] / D

Ozsoy et al. 2022, arXiv:2209.07999, eq. 8-11, the two-matrix form; μ starts at 0 and R at I. The gradient runs
through this call's share of μ and R, not into earlier calls. Defaults are those of the code released with UNSEE:
λ = 0.01 means that 99% of R is the current batch. At N = 32 sentences and D = 768 features R has some 94
eigenvalues above 1e-5, at N = 1024 all of them: the objective changes with the global batch, so the weights have
to be tuned again with it. A step has two pairs of views (both directions) and the state changes with each, as published.

The log determinant needs float64: ε = 1e-6 is below fp32's resolution of the large eigenvalues.
About another point than the batch's mean the scatter is Σ (z − μ)ᵀ(z − μ) = S + N (m − μ)ᵀ(m − μ), m and S the batch's own.
Shapes: V pairs of views, whose losses are summed in their order, B sentences on this rank, D features.
"""

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unsee_dist.config.objective import CorInfoMaxSettings
from unsee_dist.distributed.reduce import Reduction
from unsee_dist.objectives.moments import Scatter, mean_squared_error, pairs, scatters
from unsee_dist.objectives.outcome import Outcome, outcome


class _Running(NamedTuple):
    """One view's running mean (D) and covariance (D, D)."""

    mean_D: Tensor
    covariance_DD: Tensor


DEFAULT = CorInfoMaxSettings()


class CorInfoMax(nn.Module):
    """`decay` is λ, `eps` ε, `covariance` w_cov, `invariance` w_inv; `normalise` L2-normalises the rows first.

    Forward proposes the next state, starting from the proposal of earlier pairs of the same step; the float64
    buffers, identical on all ranks, change only in `commit()`. `discard()` drops the proposal (a skipped step).
    """

    symmetric: ClassVar[bool] = True
    online_mean: Tensor
    online_covariance: Tensor
    target_mean: Tensor
    target_covariance: Tensor

    def __init__(  # noqa: PLR0913  (its settings, by keyword)
        self,
        width: int,
        reduction: Reduction,
        *,
        decay: float = DEFAULT.decay,
        eps: float = DEFAULT.eps,
        covariance: float = DEFAULT.covariance,
        invariance: float = DEFAULT.invariance,
        normalise: bool = DEFAULT.normalise,
    ) -> None:
        super().__init__()
        self.width, self.reduction, self.decay, self.eps = width, reduction, decay, eps
        self.covariance, self.invariance, self.normalise = covariance, invariance, normalise
        for view in ("online", "target"):
            self.register_buffer(f"{view}_mean", torch.zeros(width, dtype=torch.float64))
            self.register_buffer(f"{view}_covariance", torch.eye(width, dtype=torch.float64))
        self._pending: tuple[_Running, _Running] | None = None

    def forward(self, online: Tensor, target: Tensor) -> Outcome:
        x_VBD, y_VBD = (views_VBD.double() for views_VBD in pairs(online, target))
        if self.normalise:
            x_VBD, y_VBD = F.normalize(x_VBD, dim=2), F.normalize(y_VBD, dim=2)
        of_x, of_y = scatters(x_VBD, y_VBD, self.reduction)
        sentences = x_VBD.shape[1] * self.reduction.size
        running_x, running_y = self._pending or self._committed()
        covariances = []
        for pair in range(len(x_VBD)):
            running_x = self._move(running_x, of_x, pair, sentences)
            running_y = self._move(running_y, of_y, pair, sentences)
            covariances += [running_x.covariance_DD, running_y.covariance_DD]
            running_x, running_y = _detached(running_x), _detached(running_y)
        self._pending = running_x, running_y
        volume = self._log_volumes(torch.stack(covariances)).sum()
        return outcome(
            invariance=(self.invariance * mean_squared_error(x_VBD, y_VBD)).to(online.dtype),
            covariance=(-self.covariance * volume / self.width).to(online.dtype),
        )

    def commit(self) -> None:
        """Write the proposed state into the buffers, in place. Without a proposal nothing changes."""
        if self._pending is not None:
            for buffer, proposed in zip(
                self._flat(self._committed()), self._flat(self._pending), strict=True
            ):
                buffer.copy_(proposed)
        self._pending = None

    def discard(self) -> None:
        """Drop the proposed state: the next call starts from the buffers again."""
        self._pending = None

    def _committed(self) -> tuple[_Running, _Running]:
        return (
            _Running(self.online_mean, self.online_covariance),
            _Running(self.target_mean, self.target_covariance),
        )

    @staticmethod
    def _flat(views: tuple[_Running, _Running]) -> tuple[Tensor, ...]:
        return (*views[0], *views[1])

    def _move(self, before: _Running, batch: Scatter, pair: int, sentences: int) -> _Running:
        batch_D, scatter_DD = batch.mean_VD[pair], batch.scatter_VDD[pair]
        mean_D = self.decay * before.mean_D + (1 - self.decay) * batch_D
        gap_D = batch_D - mean_D
        covariance_DD = scatter_DD / sentences + gap_D[:, None] * gap_D
        return _Running(mean_D, self.decay * before.covariance_DD + (1 - self.decay) * covariance_DD)

    def _log_volumes(self, covariances_KDD: Tensor) -> Tensor:
        # slogdet, not Cholesky: a NaN batch must come out as a NaN loss for the guard, not as an exception.
        shift_DD = self.eps * torch.eye(self.width, dtype=torch.float64, device=covariances_KDD.device)
        return torch.linalg.slogdet(covariances_KDD + shift_DD).logabsdet


def _detached(running: _Running) -> _Running:
    return _Running(running.mean_D.detach(), running.covariance_DD.detach())
