"""BYOL: the online projection points where the target embedding points.

    L = mean_b (2 − 2 cos(x_b, y_b))

Grill et al. 2020, arXiv:2006.07733, eq. 2. The sentences of a batch depend on each other only through the projector's BatchNorm.
Shapes: V pairs of views, whose losses are summed, B sentences on this rank, D features.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from unsee_dist.distributed.reduce import Reduction
from unsee_dist.objectives.moments import pairs
from unsee_dist.objectives.outcome import Outcome, outcome


class BYOL(nn.Module):
    """No settings. The loss of a pair is this rank's mean."""

    symmetric: ClassVar[bool] = True

    def __init__(self, width: int, reduction: Reduction) -> None:  # noqa: ARG002  (one signature for all)
        super().__init__()

    def forward(self, online: Tensor, target: Tensor) -> Outcome:
        online_VBD, target_VBD = pairs(online, target)
        cosine_VB = (F.normalize(online_VBD, dim=2) * F.normalize(target_VBD, dim=2)).sum(2)
        return outcome(invariance=(2 - 2 * cosine_VB).mean(1).sum())
