"""Text to shards, shards to batches.

    from unsee_dist.config import load
    from unsee_dist.data import Shards, Stream

    shards = Shards("corpus/")                                   # written by `unsee prepare INPUT --out corpus/`
    config = load("unsee-vicreg", ["train.batch=64"])
    for batch in Stream(shards, tokenizer, config, rank=0, ranks=1).batches(1, 1000):
        ...                                                      # batch.ids, batch.micro_batches

Names are imported on first use: `unsee shards` does not wait for torch. Preparation is `data.prepare.prepare`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unsee_dist.data.corpus.mix import Mix, open_corpus
    from unsee_dist.data.corpus.shards import Shards
    from unsee_dist.data.stream.packing import MicroBatch, attention_mask, pack
    from unsee_dist.data.stream.stream import Batch, Stream

__all__ = [
    "Batch",
    "MicroBatch",
    "Mix",
    "Shards",
    "Stream",
    "attention_mask",
    "open_corpus",
    "pack",
]

_HOME = {
    "Batch": "stream.stream",
    "Stream": "stream.stream",
    "Shards": "corpus.shards",
}
_HOME |= {"Mix": "corpus.mix", "open_corpus": "corpus.mix"}
_HOME |= {"MicroBatch": "stream.packing", "attention_mask": "stream.packing", "pack": "stream.packing"}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
