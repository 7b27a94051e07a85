"""Dropout of an encoder by the masks of its sentences (masks.py), wherever the encoder drops: embeddings, hidden states,
attention weights.

`install` replaces the dropouts of an encoder. While `Masks.of` is open, each of them draws the masks of the sentences that
are in the rows. An encoder whose dropouts are not all found keeps torch's: `seeded` then makes them a function of the
micro-batch, at least.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unsee_dist.data.stream.packing import MicroBatch
from unsee_dist.model import mask_operations, masks
from unsee_dist.model.mask_rows import MaskRows, dropped, fits, spans

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "unsee"  # of the attention, in transformers' table
ONLINE, TARGET = 0, 1
CALL = (
    1 << 16
)  # more than the modules of an encoder: site + CALL n is the site at its call n + 1 in a forward


class Masks:
    """The masks of one encoder, for its dropouts. network: ONLINE or TARGET, which have masks of their own.

    A module that is called again in a forward (ALBERT has one for all its layers) draws other masks at each call.
    """

    def __init__(self) -> None:
        self.network = ONLINE
        self.rows: MaskRows | None = None  # of the forward that runs
        self._calls: dict[int, int] = {}  # of each site in this forward

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
        packed = micro_batch.packed
        self.rows = MaskRows(
            torch.cat(keys_RT),
            positions_RT.repeat(len(times), 1) if packed else None,
            spans(segments_RT, positions_RT, len(times)) if packed else None,
        )
        self._calls.clear()
        try:
            yield
        finally:
            self.rows = None

    def drop(self, x: Tensor, p: float, site: int) -> Tensor:
        """x under the masks of its place: (R, T, F) hidden states, or (R, H, T, T) attention weights. 0 <= p < 1."""
        if p == 0:
            return x
        rows = self.rows
        if rows is None:
            raise RuntimeError("an encoder in training mode has no sentences: call `encode`, or eval()")
        call = self._calls.get(site, 0)
        self._calls[site] = call + 1
        if not fits(x, rows):
            raise UnknownShape(
                f"dropout of a tensor of shape {tuple(x.shape)} over rows of shape {tuple(rows.keys_RT.shape)}"
            )
        drop = mask_operations.dropped if torch.compiler.is_compiling() else dropped
        return drop(x, rows, p, site + CALL * call)


class UnknownShape(RuntimeError):
    """An encoder drops a tensor that is neither hidden states nor attention weights, or has a mask that is none of scores."""


def _of_segments(own_S: Tensor, first: int, views: int) -> Tensor:
    """The keys of the texts in the rows, which hold so many views from the first on."""
    keys = [masks.combined(own_S, view) for view in range(first, first + views)]
    return keys[0] if views == 1 else torch.cat(keys)


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
        if attention_mask.ndim > scores.ndim:
            raise UnknownShape(
                f"a mask of shape {tuple(attention_mask.shape)} for scores of shape {tuple(scores.shape)}"
            )
        scores = scores + attention_mask
    weights = scores.softmax(-1)
    if module.training and dropout > 0:
        own, site = module.masks, module.mask_site
        assert isinstance(own, Masks)
        assert isinstance(site, int)
        weights = own.drop(weights, dropout, site)
    return (weights @ value).transpose(1, 2).contiguous(), weights
