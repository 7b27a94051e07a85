"""Batches and a BERT for the bench without corpus, tokenizer or download.

Cut to 64 word pieces, the mean length is 29.4 and 66% have at most 32 (English Wikipedia, by BERT's own tokenizer:
29.5 and 64%). Ids are log-uniform, so that few are frequent and most are rare, as of words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from unsee_dist.config import RunConfig
from unsee_dist.data import Batch, pack
from unsee_dist.data.corpus.ragged import Ragged
from unsee_dist.data.stream.mask_keys import mask_keys
from unsee_dist.distributed.world import World
from unsee_dist.model.dropout import install, register
from unsee_dist.model.fresh import FreshSize, bert_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BERT_BASE = FreshSize(vocabulary=30522, width=768, layers=12, heads=12, max_tokens=512)
MEDIAN, SIGMA, SHORTEST = 26.5, 0.5, 4
LENGTHS = (
    f"Random sentences: lengths in word pieces log-normal, median {MEDIAN}, sigma {SIGMA}, from {SHORTEST} to "
    "model.max_tokens (mean 29.4 at 64); ids log-uniform, [CLS] first, [SEP] last."
)
PAD, CLS, SEP, FIRST = 0, 2, 3, 5  # FIRST: of the pieces that are words


def fresh_bert(size: FreshSize, dropout: float | None, device: torch.device) -> PreTrainedModel:
    """A BERT with random weights as `load_encoder` returns one: fp32, training mode, no pooler, masks by sentence."""
    from transformers import BertModel

    config = bert_config(size, PAD, dropout)
    config._attn_implementation = register()
    with device:
        encoder = BertModel(config, add_pooling_layer=False)
    install(encoder)
    return encoder.train()


def sentences(number: int, max_tokens: int, vocabulary: int, seed: int) -> Ragged:
    """Token ids of random sentences; equal arguments give equal ids."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(np.log(MEDIAN), SIGMA, number))
    lengths = lengths.round().clip(min(SHORTEST, max_tokens), max_tokens).astype(np.int64)
    words = vocabulary - FIRST
    ids = FIRST + np.floor(words ** rng.random(int(lengths.sum()))).astype(np.int64) - 1
    ends = np.cumsum(lengths)
    ids[ends - lengths], ids[ends - 1] = CLS, SEP
    return Ragged(ids, lengths)


def batch(config: RunConfig, vocabulary: int, step: int, world: World, exact_masks: bool = True) -> Batch:
    """This rank's part of a step's batch, cut and packed as the stream does it, in page-locked memory for a GPU.

    exact_masks: False = without keys, for an encoder that drops by torch's generator.
    """
    per_rank = config.train.batch // world.size
    ids = np.arange(per_rank) + world.rank * per_rank
    own = sentences(per_rank, config.model.max_tokens, vocabulary, seed=1000 * step + world.rank)
    keys, size = mask_keys(config.seed, step, ids), config.train.micro_batch or per_rank
    micro_batches = tuple(
        pack(
            part,
            config.model.max_tokens,
            PAD,
            config.data.pack is not False,
            keys[start : start + size] if exact_masks else None,
        )
        for start, part in zip(range(0, per_rank, size), own.cut(size), strict=True)
    )
    made = Batch(step, tuple(ids.tolist()), micro_batches, len(own.ids))
    return made.pin_memory() if world.device.type == "cuda" else made


def padding(batches: Sequence[Batch]) -> float:
    """Share of the cells of the rows that hold no token."""
    cells = sum(micro_batch.input_ids.numel() for each in batches for micro_batch in each.micro_batches)
    return 1 - sum(each.tokens for each in batches) / cells
