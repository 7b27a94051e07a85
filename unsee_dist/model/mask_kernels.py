"""The masks of masks.py on a GPU: drawn and applied in one Triton kernel, drawn again in the backward.

The same bits as masks.py, which is the definition: there a mask takes some 25 kernels, each of which reads and writes the
whole of it. Nothing of a mask is kept for the backward. Triton comes with torch's builds for GPUs.

Shapes: R rows, T tokens a row, H heads, F features, N = R T.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# Triton compiles the kernels, and gives their arguments no types.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from unsee_dist.data.corpus import order
from unsee_dist.model import masks

GOLDEN, MIX_1, MIX_2 = (tl.constexpr(x) for x in (order.GOLDEN, order.MIX_1, order.MIX_2))
CELLS = 4096  # of a block


@triton.jit
def _mix(x):
    x = (x ^ (x >> 30)) * MIX_1
    x = (x ^ (x >> 27)) * MIX_2
    return x ^ (x >> 31)


@triton.jit
def _combined(key, part):
    return _mix((key ^ part) + GOLDEN)


@triton.jit
def _multiplied(x, a, b, c, place, dropped, factor):
    """x under the lanes `place` of the words a c + b."""
    word = a * c + b
    word = word ^ (word >> 32)
    drawn = (word >> ((place % 4) * 16).to(tl.uint64)) & 0x7FFF
    return (x.to(tl.float32) * tl.where(drawn >= dropped, factor, 0.0)).to(x.dtype)


@triton.jit(do_not_specialize=["site", "dropped"])
def _hidden(
    x_ptr,
    y_ptr,
    keys_ptr,
    words_ptr,
    tokens,
    features,
    site,
    dropped,
    factor,
    N: tl.constexpr,
    F: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64) * N + tl.arange(0, N)
    f = tl.arange(0, F)
    key = tl.load(keys_ptr + n, mask=n < tokens, other=0).to(tl.uint64, bitcast=True)
    a = _combined(key, site.to(tl.uint64))
    b = _combined(a, a ^ a)
    c = tl.load(words_ptr + f // 4, mask=f < features, other=0).to(tl.uint64, bitcast=True)
    inside = (n < tokens)[:, None] & (f < features)[None, :]
    at = n[:, None] * features + f[None, :]
    x = tl.load(x_ptr + at, mask=inside, other=0.0)
    y = _multiplied(x, a[:, None], b[:, None], c[None, :], f[None, :], dropped, factor)
    tl.store(y_ptr + at, y, mask=inside)


@triton.jit(do_not_specialize=["site", "dropped"])
def _attention(
    x_ptr, y_ptr, keys_ptr, positions_ptr, words_ptr, heads, tokens, site, dropped, factor,
    PACKED: tl.constexpr, Q: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    q, k = tl.program_id(1) * Q + tl.arange(0, Q), tl.arange(0, K)
    key = tl.load(keys_ptr + row.to(tl.int64) * tokens + q, mask=q < tokens, other=0).to(
        tl.uint64, bitcast=True
    )
    a = _combined(_combined(key, site.to(tl.uint64)), head.to(tl.uint64))
    b = _combined(a, a ^ a)
    place = k
    if PACKED:
        place = tl.load(positions_ptr + row.to(tl.int64) * tokens + k, mask=k < tokens, other=0).to(tl.int32)
    c = tl.load(words_ptr + place // 4, mask=k < tokens, other=0).to(tl.uint64, bitcast=True)
    inside = (q < tokens)[:, None] & (k < tokens)[None, :]
    at = (tl.program_id(0).to(tl.int64) * tokens + q[:, None]) * tokens + k[None, :]
    x = tl.load(x_ptr + at, mask=inside, other=0.0)
    y = _multiplied(x, a[:, None], b[:, None], c[None, :], place[None, :], dropped, factor)
    tl.store(y_ptr + at, y, mask=inside)


class _Dropped(torch.autograd.Function):
    """x under its masks; the gradient under the same ones."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, keys_RT: Tensor, positions_RT: Tensor | None, p: float, site: int
    ) -> Tensor:
        ctx.save_for_backward(keys_RT, positions_RT)
        ctx.p, ctx.site = p, site
        return _launched(x, keys_RT, positions_RT, p, site)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        keys_RT, positions_RT = ctx.saved_tensors
        return _launched(grad, keys_RT, positions_RT, ctx.p, ctx.site), None, None, None, None


def dropped(x: Tensor, keys_RT: Tensor, positions_RT: Tensor | None, p: float, site: int) -> Tensor:
    """x under the masks of its place: (R, T, F) hidden states, or (R, H, T, T) attention weights. With gradient.

    positions_RT: of the tokens in their sentences, None where each row holds one sentence. 0 < p < 1.
    """
    result: Tensor = _Dropped.apply(x, keys_RT, positions_RT, p, site)
    return result


def _launched(x: Tensor, keys_RT: Tensor, positions_RT: Tensor | None, p: float, site: int) -> Tensor:
    x, keys_RT = x.contiguous(), keys_RT.contiguous()
    y = torch.empty_like(x)
    below, factor = masks.threshold(p, x.dtype)
    rows, tokens = keys_RT.shape
    if x.dim() == 3:
        features = x.shape[2]
        width = triton.next_power_of_2(features)
        block = max(1, CELLS // width)
        _hidden[(triton.cdiv(rows * tokens, block),)](
            x, y, keys_RT, masks.constants(-(-features // masks.LANES), x.device), rows * tokens, features,
            site, below, factor, N=block, F=width,
        )  # fmt: skip
        return y
    heads, width = x.shape[1], triton.next_power_of_2(tokens)
    block = min(max(1, CELLS // width), width)
    places_RT = (
        keys_RT if positions_RT is None else positions_RT.contiguous()
    )  # not read where rows are not shared
    _attention[(rows * heads, triton.cdiv(tokens, block))](
        x, y, keys_RT, places_RT,
        masks.constants(-(-tokens // masks.LANES), x.device), heads, tokens, site, below, factor,
        PACKED=positions_RT is not None, Q=block, K=width,
    )  # fmt: skip
    return y
