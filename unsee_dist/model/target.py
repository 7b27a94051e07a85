"""The target: an exponential moving average of the online encoder, fp32, in place on every rank.

    ξ ← decay ξ + (1 - decay) θ          θ: the fp32 master weights, after each applied step

Stored in the same parts as θ in the optimizer, so it is sharded like the optimizer, and copied to the
(low-precision) target network after each update. In bf16 about 95% of each change at decay 0.999 would be
lost by rounding. UNSEE, arXiv 2401.15316; the schedule from BYOL, arXiv 2006.07733.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unsee_dist.config.sections import DecaySchedule
from unsee_dist.distributed.masters import Shard
from unsee_dist.distributed.replica import Replica


class Target:
    """`ema[k]` is this rank's part for `shards[k]`, fp32."""

    def __init__(self, shards: Sequence[Shard], replica: Replica) -> None:
        self.shards, self.replica = tuple(shards), replica
        self.masters = [shard.master for shard in self.shards]
        self.ema = [master.clone() for master in self.masters]
        self.replica.publish(self.ema)

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Call after an applied step, never after a skipped one."""
        follow(self.ema, self.masters, decay)
        self.publish()

    def publish(self) -> None:
        """Call after writing to `ema`. Collective."""
        self.replica.publish(self.ema)

    @torch.no_grad()
    def squares(self) -> Tensor:
        """(2,) float64: Σ(θ - ξ)² and Σθ² over this rank's parts."""
        if not self.ema:
            return torch.zeros(2, dtype=torch.float64)
        gaps = torch._foreach_norm(torch._foreach_sub(self.masters, self.ema), 2)
        sizes = torch._foreach_norm(self.masters, 2)
        return torch.stack([torch.stack(list(norms)).double().square().sum() for norms in (gaps, sizes)])


@torch.no_grad()
def follow(average: Sequence[Tensor], weights: Sequence[Tensor], decay: float) -> None:
    """The rule, in place: each of `average` becomes decay times itself and 1 - decay times its weight."""
    if average:
        torch._foreach_lerp_(list(average), list(weights), 1.0 - decay)


def decay_at(update: int, updates: int, base: float, schedule: DecaySchedule) -> float:
    """The decay of an update (1..updates). cosine: from `base` to 1, as BYOL's τ."""
    if schedule == "constant":
        return base
    return 1 - (1 - base) * (math.cos(math.pi * update / updates) + 1) / 2
