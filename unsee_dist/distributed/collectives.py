"""Collectives whose name differs between the versions of torch in use."""

from __future__ import annotations

from collections.abc import Callable

import torch.distributed as dist
from torch import Tensor

# torch 2.13 renamed it and warns at each call of the old name; 2.11 has only that one
_gather: Callable[..., object] = (
    dist.all_gather_single if hasattr(dist, "all_gather_single") else dist.all_gather_into_tensor
)


def all_gather(output: Tensor, part: Tensor, group: dist.ProcessGroup | None = None) -> None:
    """Fill `output` (R n, ...) with the parts (n, ...) of all ranks, in rank order. `part` is contiguous."""
    _gather(output, part, group=group)
