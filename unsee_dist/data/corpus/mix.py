"""Corpus: the source of a stream, one prepared folder or several mixed in fixed shares.

    Mix: of every W positions, W = Σ w_c (times a power of two, so that W >= 1024), corpus c has w_c, at places that are
    permuted. Each corpus keeps its own order: all its sentences once before any of them again.

The pattern repeats after lcm(W, batch) positions. So each corpus has its own places of the batch, and lanes on them
(lanes.py). Where that period is too long for a table, a corpus has one lane: ranks then read more than they use.

The corpus of a position is computed, like the order of one corpus (order.py): nothing is drawn or stored.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from unsee_dist.config.sections import DataSettings, OnDamage
from unsee_dist.data.corpus.lanes import Lanes
from unsee_dist.data.corpus.order import Order, key, permute
from unsee_dist.data.corpus.ragged import Ragged
from unsee_dist.data.corpus.shards import Shards
from unsee_dist.data.corpus.sizes import BlockSizes
from unsee_dist.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

CYCLE = 1024  # positions, at least
SHARES = 1 << 16  # their largest sum
PERIOD = 1 << 21  # positions, at most: tables of 28 MB


class Positions(Protocol):
    """An order of training."""

    def ids(self, positions: np.ndarray) -> np.ndarray:
        """Global sentence ids (int64) at these positions."""
        ...

    def open_blocks(self, first: int, last: int) -> int:
        """The blocks to keep for places first..last-1 of the batch."""
        ...

    def edges(self) -> np.ndarray:
        """The places of the batch at which lanes begin."""
        ...


class TokenReader(Protocol):
    """Token ids by block."""

    def read(self, block: int) -> Ragged:
        """The token ids of a block's sentences."""
        ...


class Corpus(Protocol):
    """The source of a stream: `Shards`, or a `Mix` of them."""

    @property
    def path(self) -> str | Path: ...

    fingerprint: str
    sentences: int
    sizes: BlockSizes
    on_damage: OnDamage

    def order(self, seed: int, batch: int) -> Positions: ...

    def tokens(self, tokenizer: PreTrainedTokenizerFast, max_tokens: int) -> TokenReader | None: ...

    def find(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...

    def first_id(self, block: int) -> int: ...

    def read(self, block: int) -> list[str]: ...

    def replacement_block(self, block: int) -> int: ...

    def head(self, n: int) -> list[str]: ...


class Mix:
    """Several corpora as one: ids and blocks are numbered through all of them in the order given.

    An epoch is as many sentences as all corpora have; each corpus starts again whenever its own sentences are used up.
    """

    def __init__(self, corpora: Sequence[Shards], shares: Sequence[int]) -> None:
        self.corpora, self.shares = list(corpora), list(shares)
        self.path = ", ".join(f"{share} {corpus.path}" for corpus, share in zip(corpora, shares, strict=True))
        description = "\n".join(
            f"{share} {corpus.fingerprint}" for corpus, share in zip(corpora, shares, strict=True)
        )
        self.fingerprint = hashlib.sha256(description.encode()).hexdigest()[:32]
        self.sizes = BlockSizes.joined([corpus.sizes for corpus in corpora])
        self._first_blocks = np.cumsum([0, *(len(corpus.blocks) for corpus in corpora)]).tolist()
        self._first_ids = np.cumsum([0, *(corpus.sentences for corpus in corpora)]).tolist()
        self.sentences: int = self._first_ids[-1]
        self.on_damage = self.corpora[0].on_damage

    def order(self, seed: int, batch: int) -> MixOrder:
        """The order of the sentences in training, in batches of so many."""
        return MixOrder(
            [corpus.sizes for corpus in self.corpora],
            self._first_ids,
            Pattern(self.shares, seed, batch),
            seed,
        )

    def tokens(self, tokenizer: PreTrainedTokenizerFast, max_tokens: int) -> MixTokens | None:
        """The blocks' token ids, when all corpora have them."""
        readers = [corpus.tokens(tokenizer, max_tokens) for corpus in self.corpora]
        present = [reader for reader in readers if reader is not None]
        return MixTokens(self, present) if len(present) == len(readers) else None

    def find(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Blocks of sentences, and their lines there."""
        return self.sizes.find(ids)

    def first_id(self, block: int) -> int:
        """Id of the first sentence of a block."""
        return int(self.sizes.first_ids(np.array(block)))

    def corpus_of(self, block: int) -> tuple[int, int]:
        """The number of the corpus of a block, and the block's number inside it."""
        number = int(np.searchsorted(self._first_blocks, block, side="right")) - 1
        return number, block - self._first_blocks[number]

    def read(self, block: int) -> list[str]:
        """The sentences of a block, verified."""
        number, inside = self.corpus_of(block)
        return self.corpora[number].read(inside)

    def replacement_block(self, block: int) -> int:
        """The block to read for this one: see `Shards.replacement_block`; always of the same corpus."""
        number, inside = self.corpus_of(block)
        return self._first_blocks[number] + self.corpora[number].replacement_block(inside)

    def head(self, n: int) -> list[str]:
        """The first n sentences, of each corpus its share."""
        total = sum(self.shares)
        heads = [
            corpus.head(-(-n * share // total))
            for corpus, share in zip(self.corpora, self.shares, strict=True)
        ]
        return [sentence for sentences in heads for sentence in sentences][:n]


class Pattern:
    """Which corpus has each position, and how many positions of that corpus come before it.

    period: of the table of all positions until the pattern repeats; None where that would be too long: each cycle then
    is laid out when it is needed.
    """

    def __init__(self, shares: Sequence[int], seed: int, batch: int) -> None:
        factor = 1 << max(0, (-(-CYCLE // sum(shares)) - 1).bit_length())
        self.seed, self.batch = seed, batch
        self.starts = np.cumsum([0, *(share * factor for share in shares)])  # of each corpus in a cycle
        self.cycle = int(self.starts[-1])
        period = math.lcm(self.cycle, batch)
        self.period = period if period <= PERIOD else None
        if self.period:
            self._corpora, self._turns = self._lay_out(range(self.period // self.cycle))

    def find(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The corpus of each position (int64), and its position there."""
        if self.period:
            periods, places = np.divmod(positions, self.period)
            corpora = self._corpora[places]
            sizes = np.diff(self.starts) * (self.period // self.cycle)
            return corpora, periods * sizes[corpora] + self._turns[places]
        cycles, places = np.divmod(positions, self.cycle)
        found, which = np.unique(cycles, return_inverse=True)
        corpora, turns = (
            each.reshape(-1, self.cycle)[which, places] for each in self._lay_out(found.tolist())
        )
        return corpora, (cycles - which) * np.diff(self.starts)[corpora] + turns

    def places(self, corpus: int) -> np.ndarray:
        """(C,) the place in the batch of each of a corpus's positions of a period; of a pattern without one, the first."""
        if not self.period:
            return np.zeros(1, dtype=np.int64)
        return np.flatnonzero(self._corpora == corpus) % self.batch

    def _lay_out(self, cycles: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Of each place of these cycles, end to end: its corpus, and how many of that corpus come before it."""
        slots = np.concatenate(
            [permute(np.arange(self.cycle), self.cycle, key(self.seed, 2, cycle)) for cycle in cycles]
        )
        corpora = (np.searchsorted(self.starts, slots.astype(np.int64), side="right") - 1).astype(np.int32)
        by_corpus = np.argsort(corpora, kind="stable")
        first = np.searchsorted(corpora[by_corpus], np.arange(len(self.starts) - 1))
        turns = np.empty(len(slots), dtype=np.int32)
        turns[by_corpus] = np.arange(len(slots)) - first[corpora[by_corpus]]
        return corpora, turns


class MixOrder:
    """Ids by position over several corpora."""

    def __init__(
        self, sizes: Sequence[BlockSizes], first_ids: Sequence[int], pattern: Pattern, seed: int
    ) -> None:
        self.pattern, self.first_ids = pattern, first_ids
        lanes = [Lanes(pattern.places(corpus), pattern.batch, len(each)) for corpus, each in enumerate(sizes)]
        self.orders = [Order(each, key(seed, corpus), lanes[corpus]) for corpus, each in enumerate(sizes)]

    def ids(self, positions: np.ndarray) -> np.ndarray:
        """Global sentence ids (int64) at these positions (>= 0, any order)."""
        corpora, inside = self.pattern.find(np.asarray(positions, dtype=np.int64))
        ids = np.empty_like(inside)
        for corpus in np.unique(corpora).tolist():
            chosen = corpora == corpus
            ids[chosen] = self.orders[corpus].ids(inside[chosen]) + self.first_ids[corpus]
        return ids

    def open_blocks(self, first: int, last: int) -> int:
        """See `Order.open_blocks`; of all corpora together."""
        if not self.pattern.period:
            first, last = 0, self.pattern.batch
        return sum(order.open_blocks(first, last) for order in self.orders)

    def edges(self) -> np.ndarray:
        """The places of the batch at which a lane of any corpus begins."""
        return np.unique(np.concatenate([order.edges() for order in self.orders]))


class MixTokens:
    """Token ids by block over several corpora."""

    def __init__(self, mix: Mix, readers: Sequence[TokenReader]) -> None:
        self.mix, self.readers = mix, readers

    def read(self, block: int) -> Ragged:
        """The token ids of a block's sentences."""
        number, inside = self.mix.corpus_of(block)
        return self.readers[number].read(inside)


def open_corpus(data: DataSettings, check: bool = True) -> Shards | Mix:
    """The corpus of a run: the folder `data.shards`, or the mix `data.mix`, "3 data/wiki, 1 data/mine". check: see `Shards`.

    Raises UserError for a mix that cannot be read as one, and what `Shards` raises.
    """
    if data.mix is None:
        return Shards(data.shards, data.on_damage, data.cache_gb, check)
    share_of: dict[str, int] = {}
    for item in data.mix.split(","):
        share, _, path = item.strip().partition(" ")
        path = path.strip()
        if not path or not share.isdecimal() or int(share) < 1 or path in share_of:
            raise UserError(
                f"data.mix = {data.mix} cannot be read as a mix ({item.strip()!r}). "
                "Write whole shares and different folders: 3 data/wiki, 1 data/mine."
            )
        share_of[path] = int(share)
    if sum(share_of.values()) > SHARES:
        raise UserError(
            f"data.mix = {data.mix} has shares that sum to more than {SHARES:,}. Write smaller ones."
        )
    corpora = [
        Shards(path, data.on_damage, data.cache_gb, check, "a folder of data.mix") for path in share_of
    ]
    return Mix(corpora, list(share_of.values()))
