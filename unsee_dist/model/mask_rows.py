"""The masks of masks.py for the rows of a forward, in which several sentences may lie one after another.

Shapes: R rows, T tokens a row, H heads, F features, N sentences in all views.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

from unsee_dist.model import masks


@dataclass(frozen=True)
class MaskRows:
    """What is in the rows of a forward. keys_RT: of the tokens.

    positions_RT: of the tokens in their sentences, None where each row holds one sentence from its first token on.
    spans_N3: row, first token and end of all sentences then, on a CPU.
    """

    keys_RT: Tensor
    positions_RT: Tensor | None = None
    spans_N3: Tensor | None = None


def spans(segments_RT: Tensor, positions_RT: Tensor, views: int) -> Tensor | None:
    """(N, 3) int64: of the sentences of these rows, which come again for each view. None on a GPU: nothing reads them there,
    and the host would wait for them."""
    if segments_RT.device.type != "cpu":
        return None
    inside_RT = segments_RT >= 0
    lengths_S = torch.bincount(segments_RT[inside_RT])
    row_S, start_S = (inside_RT & (positions_RT == 0)).nonzero(as_tuple=True)
    end_S = start_S + lengths_S[segments_RT[row_S, start_S]]
    return torch.cat(
        [torch.stack([row_S + view * len(segments_RT), start_S, end_S], 1) for view in range(views)]
    )


def fits(x: Tensor, rows: MaskRows) -> bool:
    """Whether x is hidden states (R, T, F) of these rows, or attention weights (R, H, T, T)."""
    grid = rows.keys_RT.shape
    hidden = x.dim() == 3 and x.shape[:2] == grid
    return hidden or (x.dim() == 4 and (x.shape[0], x.shape[2], x.shape[3]) == (grid[0], grid[1], grid[1]))


def dropped(x: Tensor, rows: MaskRows, p: float, site: int) -> Tensor:
    """x under its masks, with gradient. 0 < p < 1."""
    if x.is_cuda and has_triton():
        from unsee_dist.model import mask_kernels

        return mask_kernels.dropped(x, rows.keys_RT, rows.positions_RT, p, site)
    return x * multiplier(x.shape, x.dtype, rows, p, site)


def multiplier(shape: torch.Size, dtype: torch.dtype, rows: MaskRows, p: float, site: int) -> Tensor:
    """What a tensor of this shape that fits the rows is multiplied by: 0 with probability p, else 1 / (1 - p)."""
    if len(shape) == 3:
        return masks.multiplier(masks.hidden_lanes(rows.keys_RT, site, shape[2]), p, dtype)
    return masks.multiplier(attention_lanes(rows, site, shape[1]), p, dtype)


@lru_cache(maxsize=1)
def has_triton() -> bool:
    return find_spec("triton") is not None


def attention_lanes(rows: MaskRows, site: int, heads: int) -> Tensor:
    """(R, H, T, T) int16: lane of the key's position in its sentence, for every query. Between sentences: anything."""
    if rows.positions_RT is None:
        return masks.attention_lanes(rows.keys_RT, site, heads, rows.keys_RT.shape[1])
    if rows.keys_RT.device.type == "cpu":
        assert rows.spans_N3 is not None
        return shifted_lanes(rows.keys_RT, rows.spans_N3, site, heads)
    return gathered_lanes(rows.keys_RT, rows.positions_RT, site, heads)


def gathered_lanes(keys_RT: Tensor, positions_RT: Tensor, site: int, heads: int) -> Tensor:
    tokens = keys_RT.shape[1]
    lanes = masks.attention_lanes(keys_RT, site, heads, tokens)
    return lanes.gather(-1, positions_RT[:, None, None, :].expand_as(lanes))


def shifted_lanes(keys_RT: Tensor, spans_N3: Tensor, site: int, heads: int) -> Tensor:
    """The lanes of a sentence that starts at column s are those s places on: one copy a sentence, of all its queries.

    What is shifted out of the last column goes to the next query, before the sentence, or to a query of the next sentence
    before that one: between sentences, all of it. On a CPU a gather of single elements takes many times as long.
    """
    tokens = keys_RT.shape[1]
    lanes = masks.attention_lanes(keys_RT, site, heads, tokens)
    flat = lanes.numpy().reshape(len(lanes), heads, tokens * tokens)
    for row, start, end in reversed(spans_N3.tolist()):  # none before what it overwrites is shifted
        if start > 0:
            first, last = start * tokens + start, min(end * tokens + start, tokens * tokens)
            flat[row, :, first:last] = flat[row, :, first - start : last - start]
    return lanes
