"""BYOL: the online projection points where the target embedding points.

    L = mean_b (2 − 2 cos(x_b, y_b))

Grill et al. 2020, arXiv:2006.07733, eq. 2. The sentences of a batch depend on each other only through the projector's BatchNorm.
Shapes: B sentences on this rank, D features.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from unsee_dist.distributed.reduce import Reduction
from unsee_dist.objectives.moments import check_views
from unsee_dist.objectives.outcome import Outcome, outcome


class BYOL(nn.Module):
    """No settings. The loss is this rank's mean."""

    symmetric: ClassVar[bool] = True

    def __init__(self, width: int, reduction: Reduction) -> None:  # noqa: ARG002 (one signature for all)
        super().__init__()

    def forward(self, online_BD: Tensor, target_BD: Tensor) -> Outcome:
        check_views(online_BD, target_BD)
        cosine_B = (F.normalize(online_BD) * F.normalize(target_BD)).sum(1)
        return outcome(distance=(2 - 2 * cosine_B).mean())
