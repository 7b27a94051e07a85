"""Dropout of an encoder by the masks of its sentences (masks.py), wherever the encoder drops: embeddings, hidden states,
attention weights.

`install` replaces the dropouts of an encoder. While `Masks.of` is open, each of them draws the masks of the sentences that
are in the rows. An encoder whose dropouts are not all found keeps torch's: `seeded` then makes them a function of the
micro-batch, at least.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unsee_dist.data.stream.packing import MicroBatch
from unsee_dist.model import masks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "unsee"  # of the attention, in transformers' table
ONLINE, TARGET = 0, 1
CALL = (
    1 << 16
)  # more than the modules of an encoder: site + CALL n is the site at its call n + 1 in a forward


Span = tuple[int, int, int]  # of a sentence: row, first token, end


@dataclass(frozen=True)
class MaskRows:
    """What is in the rows of a forward. keys_RT: of the tokens.

    positions_RT: of the tokens in their sentences, None where each row holds one sentence from its first token on.
    spans: of all sentences then, on a CPU.
    """

    keys_RT: Tensor
    positions_RT: Tensor | None
    spans: Sequence[Span]


class Masks:
    """The masks of one encoder, for its dropouts. network: ONLINE or TARGET, which have masks of their own.

    A module that is called again in a forward (ALBERT has one for all its layers) draws other masks at each call.
    """

    def __init__(self) -> None:
        self.network = ONLINE
        self._rows: MaskRows | None = None
        self._calls: Counter[int] = Counter()  # of each site in this forward

    @contextmanager
    def of(self, micro_batch: MicroBatch, views: int) -> Iterator[None]:
        """In this block the rows are those of the micro-batch, view after view."""
        assert micro_batch.keys is not None
        segments_RT, positions_RT = micro_batch.segment_ids, micro_batch.position_ids
        own_S = masks.combined(micro_batch.keys, self.network)
        times = range(0, views, micro_batch.views)  # the rows, and the first view that is in them
        keys_RT = [
            masks.combined(
                _of_segments(own_S, first, micro_batch.views)[segments_RT.clamp(min=0)], positions_RT
            )
            for first in times
        ]
        packed = micro_batch.segments != len(segments_RT)
        spans = _spans(segments_RT, positions_RT) if packed and segments_RT.device.type == "cpu" else []
        self._rows = MaskRows(
            torch.cat(keys_RT),
            positions_RT.repeat(len(times), 1) if packed else None,
            [
                (row + place * len(segments_RT), start, end)
                for place in range(len(times))
                for row, start, end in spans
            ],
        )
        self._calls.clear()
        try:
            yield
        finally:
            self._rows = None

    def drop(self, x: Tensor, p: float, site: int) -> Tensor:
        """x under the masks of its place: (R, T, F) hidden states, or (R, H, T, T) attention weights. 0 <= p < 1."""
        if p == 0:
            return x
        rows = self._rows
        if rows is None:
            raise RuntimeError("an encoder in training mode has no sentences: call `encode`, or eval()")
        grid, site = rows.keys_RT.shape, site + CALL * self._calls[site]
        self._calls[site % CALL] += 1
        hidden = x.shape[:2] == grid and x.dim() == 3
        weights = x.dim() == 4 and (x.shape[0], x.shape[2], x.shape[3]) == (grid[0], grid[1], grid[1])
        if (hidden or weights) and x.is_cuda and has_triton():
            from unsee_dist.model import mask_kernels

            return mask_kernels.dropped(x, rows.keys_RT, rows.positions_RT, p, site)
        if hidden:
            lanes = masks.hidden_lanes(rows.keys_RT, site, x.shape[2])
        elif weights:
            lanes = _attention_lanes(rows, site, x.shape[1])
        else:
            raise UnknownShape(
                f"dropout of a tensor of shape {tuple(x.shape)} over rows of shape {tuple(grid)}"
            )
        return x * masks.multiplier(lanes, p, x.dtype)


@lru_cache(maxsize=1)
def has_triton() -> bool:
    return find_spec("triton") is not None


class UnknownShape(RuntimeError):
    """A tensor that is neither hidden states nor attention weights is dropped."""


def _of_segments(own_S: Tensor, first: int, views: int) -> Tensor:
    """The keys of the texts in the rows, which hold so many views from the first on."""
    keys = [masks.combined(own_S, view) for view in range(first, first + views)]
    return keys[0] if views == 1 else torch.cat(keys)


def _attention_lanes(rows: MaskRows, site: int, heads: int) -> Tensor:
    """(R, H, T, T) int16: lane of the key's position in its sentence, for every query. Between sentences: anything."""
    if rows.positions_RT is None:
        return masks.attention_lanes(rows.keys_RT, site, heads, rows.keys_RT.shape[1])
    if rows.keys_RT.device.type == "cpu":
        return _shifted_lanes(rows, site, heads)
    return _gathered_lanes(rows.keys_RT, rows.positions_RT, site, heads)


def _gathered_lanes(keys_RT: Tensor, positions_RT: Tensor, site: int, heads: int) -> Tensor:
    tokens = keys_RT.shape[1]
    lanes = masks.attention_lanes(keys_RT, site, heads, tokens)
    return lanes.gather(-1, positions_RT[:, None, None, :].expand_as(lanes))


def _shifted_lanes(rows: MaskRows, site: int, heads: int) -> Tensor:
    """The lanes of a sentence that starts at column s are those s places on: one copy a sentence, of all its queries.

    What is shifted out of the last column goes to the next query, before the sentence, or to a query of the next sentence
    before that one: between sentences, all of it. On a CPU a gather of single elements takes many times as long.
    """
    tokens = rows.keys_RT.shape[1]
    lanes = masks.attention_lanes(rows.keys_RT, site, heads, tokens)
    flat = lanes.numpy().reshape(len(lanes), heads, tokens * tokens)
    for row, start, end in reversed(rows.spans):  # none before what it overwrites is shifted
        if start > 0:
            first, last = start * tokens + start, min(end * tokens + start, tokens * tokens)
            flat[row, :, first:last] = flat[row, :, first - start : last - start]
    return lanes


def _spans(segments_RT: Tensor, positions_RT: Tensor) -> list[Span]:
    inside = segments_RT >= 0
    lengths = torch.bincount(segments_RT[inside]).tolist()
    starts = (inside & (positions_RT == 0)).nonzero()
    sentences = segments_RT[starts[:, 0], starts[:, 1]].tolist()
    return [
        (row, start, start + lengths[sentence])
        for (row, start), sentence in zip(starts.tolist(), sentences, strict=True)
    ]


class Dropout(nn.Module):
    """Takes the place of torch.nn.Dropout."""

    def __init__(self, p: float, site: int, own: Masks) -> None:
        super().__init__()
        self.p, self.site, self.masks = p, site, own

    def forward(self, x: Tensor) -> Tensor:
        return self.masks.drop(x, self.p, self.site) if self.training else x

    def extra_repr(self) -> str:
        return f"p={self.p}, site={self.site}"


def install(encoder: PreTrainedModel) -> Masks:
    """Put the masks into every dropout of an encoder, attention's included (attn_implementation = `register()`)."""
    own = Masks()
    modules = list(encoder.modules())
    for site, module in enumerate(modules):
        # Attention is called with its module. Past nn.Module's own __setattr__: neither is a part of the network.
        module.__dict__.update(masks=own, mask_site=site)
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p, modules.index(child), own))
    return own


def set_network(encoder: PreTrainedModel, network: int) -> None:
    """Give an encoder the masks of this network from now on."""
    encoder.__dict__["mask_network"] = network
    if (own := masks_of(encoder)) is not None:
        own.network = network


def masks_of(encoder: PreTrainedModel) -> Masks | None:
    """What `install` has put into an encoder; None where torch's dropout was kept."""
    own = encoder.__dict__.get("masks")
    assert own is None or isinstance(own, Masks)
    return own


@contextmanager
def masks_for(encoder: PreTrainedModel, micro_batch: MicroBatch, views: int) -> Iterator[None]:
    """In this block the encoder drops by the masks of these sentences. Without keys, or in evaluation, nothing."""
    own = masks_of(encoder)
    if micro_batch.keys is None or not encoder.training:
        yield
    elif own is not None:
        with own.of(micro_batch, views):
            yield
    else:
        with seeded(micro_batch.keys, encoder.__dict__.get("mask_network", ONLINE)):
            yield


def remove(encoder: PreTrainedModel) -> None:
    """torch's own dropout again, and attention with it."""
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Dropout):
                setattr(module, name, nn.Dropout(child.p))
        module.__dict__.pop("masks", None)
        module.__dict__.pop("mask_site", None)
    encoder.set_attn_implementation("sdpa" if encoder._supports_sdpa else "eager")


@contextmanager
def seeded(keys_S: Tensor, network: int) -> Iterator[None]:
    """torch's generators seeded by the sentences that are encoded together: encoded again, they meet the same masks. As
    before after the block."""
    devices = [keys_S.device] if keys_S.device.type != "cpu" else []
    with torch.random.fork_rng(devices, device_type=devices[0].type if devices else "cuda"):
        torch.manual_seed(int(masks.combined(keys_S, network).sum()))
        yield


def register() -> str:
    """Give transformers eager attention with these masks. Returns the name for `attn_implementation`."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask_of_padding)
    return NAME


def mask_of_padding(*args: Any, **named: Any) -> Tensor | None:
    """transformers' mask. It makes none where no token is padding, but on a GPU the host would wait for that answer."""
    from transformers.masking_utils import eager_mask

    if torch.device(named.get("device", "cpu")).type != "cpu":
        named["allow_is_bidirectional_skip"] = False
    return eager_mask(*args, **named)


def attention(  # noqa: PLR0913  (transformers calls it so)
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, Tensor]:
    """softmax(q kᵀ / √d + mask) under dropout, times v. query, key, value: (R, heads, T, d) -> (R, T, heads, d).

    Fewer heads of key and value serve as many heads of the query each. softcap: c tanh(x / c) of the scores.
    """
    if (shared := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query * scaling) @ key.transpose(2, 3)
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(-1)
    if module.training and dropout > 0:
        own, site = module.masks, module.mask_site
        assert isinstance(own, Masks)
        assert isinstance(site, int)
        weights = own.drop(weights, dropout, site)
    return (weights @ value).transpose(1, 2).contiguous(), weights
