"""Dropout masks as a pure function of a sentence: the same for any ranks, rows, neighbours, and however often drawn.

    key    64 bits of (seed, step, sentence id)                            data/stream/mask_keys.py
    row    = h(h(h(key, network), view), position)                         one a token
    site   a = h(row, site) or h(h(row, site), head), b = h(a, 0)          one a token (or query and head) at each site
    word_w = f(a c_w + b mod 2^64)                                         w: four features, or four key positions
    lane   16 bits of a word; dropped where its lower 15 bits < p 2^15

h: splitmix64's finaliser (Steele, Lea, Flood 2014); c_w: odd constants, outputs of h; f(x) = x xor x >> 32. The upper half
of a c + b is pairwise independent for different c (multiply-shift hashing, Dietzfelbinger 1996), and f brings it into the
lower half, whose own bits are weak. Counter-based as Philox is (Salmon et al. 2011): any element by itself, in any order;
and four passes over a word of four elements, since a step on a CPU draws millions. Its statistics are in
tests/unit/model/test_mask_statistics.py: those of a c + b alone fail. Integers only: a CPU and a GPU have the same bits.

Shapes: R rows, T tokens a row, H heads, F features.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from unsee_dist.data.corpus import order
from unsee_dist.data.corpus.order import GOLDEN, MIX_1, MIX_2

SIGNED_GOLDEN, SIGNED_MIX_1, SIGNED_MIX_2 = (x - (1 << 64) for x in (GOLDEN, MIX_1, MIX_2))  # as int64
LANES = 4  # of 16 bits in a word
BITS = 15
CACHED_WORDS = 1 << 17  # computed at once on a CPU: what the second-level caches of two threads hold


def mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser of every int64 element."""
    if x.device.type == "cpu":  # unsigned, in place: a third of the time
        return torch.from_numpy(order.mix(x.numpy().view(np.uint64).copy()).view(np.int64))
    x = (x ^ _shifted(x, 30)) * SIGNED_MIX_1
    x = (x ^ _shifted(x, 27)) * SIGNED_MIX_2
    return x ^ _shifted(x, 31)


def combined(key: Tensor, part: Tensor | int) -> Tensor:
    """A key made of a key and one more part. int64, broadcast."""
    return mix((key ^ part) + SIGNED_GOLDEN)


def hidden_lanes(rows_RT: Tensor, site: int, features: int) -> Tensor:
    """(R, T, F) int16: random bits for the hidden states of every token. rows_RT: the keys of the tokens."""
    a_RT = combined(rows_RT, site)
    return _lanes(a_RT, features)


def attention_lanes(rows_RT: Tensor, site: int, heads: int, positions: int) -> Tensor:
    """(R, H, T, P) int16: random bits for the attention of every query and head to the key positions 0..P-1."""
    heads_H1 = torch.arange(heads, device=rows_RT.device)[:, None]
    return _lanes(combined(combined(rows_RT, site)[:, None], heads_H1), positions)


def multiplier(lanes: Tensor, p: float, dtype: torch.dtype) -> Tensor:
    """0 with probability p, else 1 / (1 - p): of `dtype`, in the shape of the int16 lanes, which are overwritten.

    p is rounded to a multiple of 2^-15 between 0 and 1, and the factor is that of the rounded p.
    """
    dropped, value = threshold(p, dtype)
    drawn = lanes.bitwise_and_((1 << BITS) - 1)
    # the sign of (dropped - 1 - drawn) is set where drawn >= dropped: all ones after the shift, kept
    last_dropped = torch.tensor(dropped - 1, dtype=torch.int16)
    kept = torch.sub(last_dropped, drawn, out=drawn).bitwise_right_shift_(15)
    factor = torch.tensor(value, dtype=dtype)
    integer = torch.int32 if dtype == torch.float32 else torch.int16
    return kept.to(integer).bitwise_and_(int(factor.view(integer))).view(dtype)


@lru_cache(maxsize=64)
def threshold(p: float, dtype: torch.dtype) -> tuple[int, float]:
    """A lane is dropped where its lower bits are below the first; what is kept is multiplied by the second, of `dtype`."""
    dropped = min(max(round(p * (1 << BITS)), 1), (1 << BITS) - 1)  # neither none nor all
    return dropped, float(torch.tensor(1 / (1 - dropped / (1 << BITS)), dtype=dtype))


def _lanes(a: Tensor, n: int) -> Tensor:
    """(...,) int64 keys -> (..., n) int16."""
    b = combined(a, 0)
    count = -(-n // LANES)
    words = _words_on_cpu(a, b, count) if a.device.type == "cpu" else _words(a, b, count)
    lanes = words.view(torch.int16)
    return lanes if n == count * LANES else lanes[..., :n].contiguous()


def _words(a: Tensor, b: Tensor, count: int) -> Tensor:
    """(...,) -> (..., count) int64: the definition."""
    x = a[..., None] * constants(count, a.device) + b[..., None]
    return x ^ _shifted(x, 32)


def _words_on_cpu(a: Tensor, b: Tensor, count: int) -> Tensor:
    """The same, a block at a time, in the cache. Words are little-endian here, as their lanes are everywhere."""
    words = torch.empty(*a.shape, count, dtype=torch.int64)
    flat = words.view(-1, count)
    lower_NW, upper_NW = flat.view(torch.int32).unflatten(1, (count, 2)).unbind(2)
    a_N1, b_N1 = a.reshape(-1, 1), b.reshape(-1, 1)
    c_W = constants(count, a.device)
    rows = max(1, CACHED_WORDS // count)
    for start in range(0, len(flat), rows):
        block = slice(start, start + rows)
        torch.addcmul(b_N1[block], a_N1[block], c_W, out=flat[block])
        lower_NW[block].bitwise_xor_(upper_NW[block])  # to shift and xor words takes twice as long
    return words


@lru_cache(maxsize=64)
def constants(count: int, device: torch.device) -> Tensor:
    """(count,) int64: c_w."""
    return mix(torch.arange(1, count + 1, dtype=torch.int64) * SIGNED_GOLDEN).bitwise_or(1).to(device)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A logical shift to the right: torch's is arithmetic, since int64 has a sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
