"""An encoder and its tokenizer, checked to be able to take every text of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from unsee_dist.config.sections import ModelSettings
from unsee_dist.distributed.one_module import module_from_rank_0
from unsee_dist.distributed.shared_errors import share_errors
from unsee_dist.distributed.world import World, from_rank_0
from unsee_dist.model.dropout import register
from unsee_dist.model.encoder import load_encoder, load_tokenizer
from unsee_dist.model.limits import check_texts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


class Loaded(NamedTuple):
    """An encoder and its tokenizer."""

    encoder: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast


def load_checked(model: ModelSettings) -> Loaded:
    """The encoder on the CPU and its tokenizer. UserError: it cannot be loaded, or cannot take texts of model.max_tokens."""
    encoder, tokenizer = load_encoder(model.encoder, model.dropout), load_tokenizer(model.encoder)
    check_texts(model.encoder, encoder, tokenizer, model.max_tokens)
    return Loaded(encoder, tokenizer)


def load_once(model: ModelSettings, world: World) -> Loaded:
    """What `load_checked` gives, on every rank and its device, read from the disk or the hub by rank 0 alone. Collective; its
    error is that of all.

    torch's generator is then as rank 0's: to load may have drawn from it, and what is made next is to be the same on all ranks.
    """
    loaded: Loaded | None = None
    with share_errors(world):
        if world.rank == 0:
            loaded = load_checked(model)
        else:
            register()  # the encoder that arrives has this attention by its name
    encoder = module_from_rank_0(world, loaded.encoder if loaded else None)
    drawn = bytes(torch.get_rng_state().numpy()) if loaded else b""
    tokenizer, drawn = from_rank_0(world, (loaded.tokenizer if loaded else None, drawn))
    assert tokenizer is not None
    torch.set_rng_state(torch.frombuffer(bytearray(drawn), dtype=torch.uint8))
    return Loaded(encoder, tokenizer)
