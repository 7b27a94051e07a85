"""Crops: each view of a record is a span of it, a pure function of (seed, step, record id, view), as its dropout masks are.

    c_0 .. c_{n-1}     the record's tokens without the special ones
    l                  of {low .. high}, at most n: the length of both spans        by (seed, step, id)
    s_1                of {0 .. n - l}                                              by (seed, step, id)
    s_2                of {s_1 - d .. s_1 + d} within {0 .. n - l}; d absent: all   by (seed, step, id, view 2)
    view v             prefix, c_{s_v} .. c_{s_v + l - 1}, suffix                   [CLS] and [SEP] of BERT

Each number is one of its set with equal chance: the upper half of a hash, times the size of the set. Integers only: every
machine has the same spans, and a rank, a worker or a resumed run needs nothing but the ids.

Shapes: S records, V = 2 views. Spans are in the order record by record, both views of one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unsee_dist.config.sections import RunConfig
from unsee_dist.data.corpus.mix import Corpus
from unsee_dist.data.corpus.order import GOLDEN, keys, mix
from unsee_dist.data.corpus.ragged import Ragged
from unsee_dist.data.stream.mask_keys import VIEWS
from unsee_dist.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CROPS = 0x63726F70  # "crop": no other key of a run is made of this and three parts
LOOKED_AT = 64  # records, before crops are made of them
LENGTH = 1 << 8  # beside the numbers of views, in what a draw is made of
HALF = np.uint64(32)
CHARACTERS = (
    16  # of a word piece, more than nearly any has: to cut a whole document for its first 64 takes 5 ms
)


@dataclass(frozen=True)
class Crops:
    """low, high: tokens of a span, without special ones. distance: of its views' beginnings at most; None = any. prefix,
    suffix: the special tokens around every text."""

    seed: int
    low: int
    high: int
    distance: int | None
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    @classmethod
    def of(cls, config: RunConfig, tokenizer: PreTrainedTokenizerFast) -> Crops:
        prefix, suffix = around(tokenizer)
        special = len(prefix) + len(suffix)
        high = max(1, config.model.max_tokens - special)
        low = min(max(1, config.data.crop_tokens - special), high)
        return cls(config.seed, low, high, config.data.crop_distance, prefix, suffix)

    @property
    def special(self) -> int:
        return len(self.prefix) + len(self.suffix)

    def __call__(self, step: int, ids: np.ndarray, records: Ragged) -> Ragged:
        """The spans of these records in a step, with the special tokens."""
        starts_SV, lengths_SV = self.places(step, ids, records.lengths - self.special)
        begins_S = np.cumsum(records.lengths) - records.lengths + len(self.prefix)
        return self._cut(records.ids, (begins_S[:, None] + starts_SV).ravel(), lengths_SV.ravel())

    def places(self, step: int, ids: np.ndarray, tokens_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(S, V) int64: the first token of each span in its record of so many, and its tokens."""
        keys_S = keys(CROPS, self.seed, step, last=ids)
        low_S, high_S = (np.minimum(bound, tokens_S) for bound in (self.low, self.high))
        lengths_S = _drawn(keys_S, LENGTH, low_S, high_S)
        last_S = tokens_S - lengths_S
        first_S = _drawn(keys_S, 0, np.zeros_like(last_S), last_S)
        starts = [first_S]
        for view in range(1, VIEWS):
            reach = tokens_S if self.distance is None else self.distance
            near, far = np.maximum(first_S - reach, 0), np.minimum(first_S + reach, last_S)
            starts.append(_drawn(keys_S, view, near, far))
        return np.stack(starts, axis=1), np.stack([lengths_S] * VIEWS, axis=1)

    def _cut(self, ids: np.ndarray, firsts: np.ndarray, lengths: np.ndarray) -> Ragged:
        whole = lengths + self.special
        ends, before = np.cumsum(whole), np.cumsum(lengths) - lengths
        begins = ends - whole
        cut = np.empty(int(whole.sum()), dtype=ids.dtype)
        for place, special in enumerate(self.prefix):
            cut[begins + place] = special
        for place, special in enumerate(self.suffix):
            cut[ends - len(self.suffix) + place] = special
        inside = np.arange(int(lengths.sum()))
        places = np.repeat(begins + len(self.prefix) - before, lengths) + inside
        cut[places] = ids[np.repeat(firsts - before, lengths) + inside]
        return Ragged(cut, whole)


def beginnings(texts: list[str], config: RunConfig) -> list[str]:
    """Of records that are cropped, more of the text than an encoder sees of it; of others, the text."""
    seen = CHARACTERS * config.model.max_tokens
    return texts if config.data.views == "dropout" else [text[:seen] for text in texts]


def check_records(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, config: RunConfig) -> None:
    """UserError: most of the first records are too short for two crops, as where documents were split into sentences."""
    least = 2 * config.data.crop_tokens
    texts = corpus.head(LOOKED_AT)
    tokens = tokenizer(texts, truncation=True, max_length=least, return_attention_mask=False)["input_ids"]
    short = sum(len(each) < least for each in tokens)
    if 2 * short > len(texts):
        raise UserError(
            f"data.views = crop needs records of at least {least} word pieces, two crops of data.crop_tokens, and {short} of the "
            f"first {len(texts)} of {corpus.path} are shorter. Prepare whole documents (a text a record, without --split), or "
            "write data.views=dropout."
        )


def around(tokenizer: PreTrainedTokenizerFast) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens before and after every text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    first = next(place for place in range(len(whole)) if whole[place : place + len(bare)] == bare)
    return tuple(whole[:first]), tuple(whole[first + len(bare) :])


def _drawn(keys_S: np.ndarray, what: int, low_S: np.ndarray, high_S: np.ndarray) -> np.ndarray:
    """(S,) int64 numbers from low to high, both included."""
    salt = np.uint64(what)
    with np.errstate(over="ignore"):
        hashes = mix((keys_S ^ salt) + np.uint64(GOLDEN)) >> HALF
        sizes = (high_S - low_S + 1).astype(np.uint64)
        return low_S + ((hashes * sizes) >> HALF).astype(np.int64)
