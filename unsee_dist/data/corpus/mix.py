"""Corpus: the source of a stream, one prepared folder or several mixed in fixed shares.

    Mix: of every W positions, W = Σ w_c (times a factor, so that W >= 1024), corpus c has w_c, at places that
    are permuted for every cycle. Each corpus keeps its own order: all its sentences once before any of them again.

The corpus of a position is computed, like the order of one corpus (order.py): nothing is drawn or stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from unsee_dist.config.sections import DataSettings, OnDamage
from unsee_dist.data.corpus.order import key, permute
from unsee_dist.data.corpus.ragged import Ragged
from unsee_dist.data.corpus.shards import Shards
from unsee_dist.data.corpus.sizes import BlockSizes
from unsee_dist.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

CYCLE = 1024  # positions, at least
SHARES = 1 << 16  # their largest sum


class Positions(Protocol):
    """An order of training."""

    def ids(self, positions: np.ndarray) -> np.ndarray:
        """Global sentence ids (int64) at these positions."""
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
    window_blocks: int
    on_damage: OnDamage

    def order(self, seed: int) -> Positions: ...

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
        self.window_blocks = sum(corpus.window_blocks for corpus in corpora)
        self.on_damage = self.corpora[0].on_damage

    def order(self, seed: int) -> MixOrder:
        """The order of the sentences in training."""
        orders = [corpus.order(key(seed, number)) for number, corpus in enumerate(self.corpora)]
        return MixOrder(orders, self._first_ids, self.shares, seed)

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


class MixOrder:
    """Ids by position over several corpora."""

    def __init__(
        self, orders: Sequence[Positions], first_ids: Sequence[int], shares: Sequence[int], seed: int
    ) -> None:
        factor = -(-CYCLE // sum(shares))
        self.orders, self.first_ids, self.seed = orders, first_ids, seed
        self.starts = np.cumsum([0, *(share * factor for share in shares)])  # of each corpus in a cycle
        self._last: tuple[int, np.ndarray, np.ndarray] | None = None

    def ids(self, positions: np.ndarray) -> np.ndarray:
        """Global sentence ids (int64) at these positions (>= 0, any order)."""
        cycles, places = np.divmod(np.asarray(positions, dtype=np.int64), int(self.starts[-1]))
        ids = np.empty_like(places)
        for cycle in np.unique(cycles).tolist():
            corpora, turns = self._lay_out(cycle)
            for corpus in np.unique(corpora[places[cycles == cycle]]).tolist():
                chosen = np.flatnonzero((cycles == cycle) & (corpora[places] == corpus))
                size = int(self.starts[corpus + 1] - self.starts[corpus])
                inside = cycle * size + turns[places[chosen]]
                ids[chosen] = self.orders[corpus].ids(inside) + self.first_ids[corpus]
        return ids

    def _lay_out(self, cycle: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each place of a cycle: its corpus, and how many of that corpus come before it in the cycle."""
        if self._last is None or self._last[0] != cycle:
            size = int(self.starts[-1])
            slots = permute(np.arange(size), size, key(self.seed, 2, cycle)).astype(np.int64)
            corpora = np.searchsorted(self.starts, slots, side="right") - 1
            turns = np.empty_like(corpora)
            turns[np.argsort(corpora, kind="stable")] = np.arange(size)
            self._last = cycle, corpora, turns - self.starts[corpora]
        return self._last[1], self._last[2]


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
    corpora = [Shards(path, data.on_damage, data.cache_gb, check) for path in share_of]
    return Mix(corpora, list(share_of.values()))
