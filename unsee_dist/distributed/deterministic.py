"""Sums on a GPU in one order, so that a step is the same bits each time: the gradient of an embedding, for one, is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.deterministic


def prepare_cublas() -> None:
    """Call before the first matrix product on a GPU: cuBLAS reads it once. With a workspace of its own a product on several
    streams is the same bits each time."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


_checks: Any = torch.utils.deterministic  # its flag is made at run time


@contextmanager
def sums_in_order(device: torch.device) -> Iterator[None]:
    """torch's deterministic kernels in this block, on a GPU. An operation without one, in an encoder unknown here, warns."""
    if device.type == "cpu":  # sums there are in order
        yield
        return
    on, warn = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    filled = _checks.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=warn or not on)
    _checks.fill_uninitialized_memory = False  # a kernel for every empty tensor, to find bugs with
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(on, warn_only=warn)
        _checks.fill_uninitialized_memory = filled
