"""The masks of sentences in a compiled encoder: operations that torch.compile takes as they are.

Dynamo traces neither numpy, by which masks are drawn on a CPU, nor what Triton launches on a GPU, and a graph would end at each
dropout. So a graph has one call in its place, with the same bits:

    unsee::multiplier   on a CPU: the factors, drawn once and kept for the backward; the product is the graph's own
    unsee::dropped      on a GPU: the factors are drawn and applied in one kernel, and again in the backward

Rows are shared (parallel.compile wants that), so that they always have positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unsee_dist.model import mask_rows
from unsee_dist.model.mask_rows import MaskRows


def dropped(x: Tensor, rows: MaskRows, p: float, site: int) -> Tensor:
    """What mask_rows.dropped gives, in a graph."""
    assert rows.positions_RT is not None
    if x.is_cuda:
        return _dropped(x, rows.keys_RT, rows.positions_RT, rows.spans_N3, p, site)
    return x * _multiplier(rows.keys_RT, rows.positions_RT, rows.spans_N3, list(x.shape), x.dtype, p, site)


@torch.library.custom_op("unsee::multiplier", mutates_args=())
def _multiplier(  # noqa: PLR0913  (an operation has no objects)
    keys_RT: Tensor,
    positions_RT: Tensor,
    spans_N3: Tensor | None,
    shape: Sequence[int],
    dtype: torch.dtype,
    p: float,
    site: int,
) -> Tensor:
    rows = MaskRows(keys_RT, positions_RT, spans_N3)
    return mask_rows.multiplier(torch.Size(shape), dtype, rows, p, site)


@_multiplier.register_fake
def _(
    keys_RT: Tensor,
    _positions_RT: Tensor,
    _spans_N3: Tensor | None,
    shape: Sequence[int],
    dtype: torch.dtype,
    _p: float,
    _site: int,
) -> Tensor:
    return keys_RT.new_empty(shape, dtype=dtype)


@torch.library.custom_op("unsee::dropped", mutates_args=())
def _dropped(
    x: Tensor, keys_RT: Tensor, positions_RT: Tensor, spans_N3: Tensor | None, p: float, site: int
) -> Tensor:
    return mask_rows.dropped(x, MaskRows(keys_RT, positions_RT, spans_N3), p, site)


@_dropped.register_fake
def _(
    x: Tensor, _keys_RT: Tensor, _positions_RT: Tensor, _spans_N3: Tensor | None, _p: float, _site: int
) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001  (torch gives it by name)
    _, *of_rows, ctx.p, ctx.site = inputs
    ctx.save_for_backward(*of_rows)


def _again(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradient under the same masks."""
    return _dropped(grad, *ctx.saved_tensors, ctx.p, ctx.site), None, None, None, None, None


_dropped.register_autograd(_again, setup_context=_keep)
