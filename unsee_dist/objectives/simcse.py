"""SimCSE: find the other view of a sentence among those of the global batch.

    L = −mean_b log( e^{cos(x_b, y_b)/τ} / Σ_n e^{cos(x_b, y_n)/τ} )

Gao, Yao & Chen 2021, arXiv:2104.08821, eq. 1 and 4; cosine and τ = 0.05 from the authors' code. One direction,
gradient through both views. The one objective whose communication grows with the batch (D numbers a sentence).
Shapes: V pairs of views (a step has one), whose losses are summed, B sentences on this rank, N = R·B over all ranks, D features.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unsee_dist.config.objective import SimCSESettings
from unsee_dist.distributed.reduce import Reduction
from unsee_dist.objectives.moments import pairs
from unsee_dist.objectives.outcome import Outcome, outcome

DEFAULT = SimCSESettings()


class SimCSE(nn.Module):
    """`temperature` is τ. The loss is the mean over this rank's rows, each against all N."""

    symmetric: ClassVar[bool] = False

    def __init__(self, width: int, reduction: Reduction, *, temperature: float = DEFAULT.temperature) -> None:  # noqa: ARG002  (one signature for all)
        super().__init__()
        self.reduction, self.temperature = reduction, temperature

    def forward(self, online: Tensor, target: Tensor) -> Outcome:
        losses = [self._contrast(*pair) for pair in zip(*pairs(online, target), strict=True)]
        return outcome(contrast=torch.stack(losses).sum())

    def _contrast(self, online_BD: Tensor, target_BD: Tensor) -> Tensor:
        x_BD, y_ND = F.normalize(online_BD), self.reduction.gather(F.normalize(target_BD))
        logits_BN = x_BD @ y_ND.T / self.temperature
        first = self.reduction.rank * len(x_BD)
        own_B = torch.arange(first, first + len(x_BD), device=x_BD.device)
        return F.cross_entropy(logits_BN, own_B)
