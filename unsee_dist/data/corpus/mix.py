"""Corpus: what a stream reads, one prepared folder or several in fixed shares.

    Mix: of every W positions, W = Σ w_c (times a factor, so that W >= 1024), corpus c has w_c, at places permuted
    anew each time. Inside a corpus its own order runs on: each of its sentences once before any of them again.

The place of a position is arithmetic, like that of one corpus (order.py): nothing is drawn, nothing is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from unsee_dist.config.sections import OnDamage
from unsee_dist.data.corpus.order import key, permute
from unsee_dist.data.corpus.ragged import Ragged
from unsee_dist.data.corpus.shards import CACHE_GB, Shards
from unsee_dist.errors import UserError

CYCLE = 1024  # positions, at least
SHARES = 1 << 16  # their largest sum


class Positions(Protocol):
    """An order of training."""

    def ids(self, positions: np.ndarray) -> np.ndarray:
        """Global sentence ids (int64) at these positions."""
        ...


class Ready(Protocol):
    """Token ids by block."""

    def read(self, block: int) -> Ragged:
        """The token ids of a block's sentences."""
        ...


class Corpus(Protocol):
    """What a stream needs: `Shards`, or a `Mix` of them."""

    path: Any
    fingerprint: str
    sentences: int
    sizes: np.ndarray
    window_blocks: int
    on_damage: OnDamage

    def order(self, seed: int) -> Positions: ...

    def tokens(self, tokenizer: Any, max_tokens: int) -> Ready | None: ...

    def find(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...

    def first_id(self, block: int) -> int: ...

    def read(self, block: int) -> list[str]: ...

    def standin(self, block: int) -> int: ...

    def head(self, n: int) -> list[str]: ...


class Mix:
    """Several corpora as one: ids and blocks count through them in the order given.

    An epoch is as many sentences as all hold together; each corpus meets its own ends when its share brings them.
    """

    def __init__(self, parts: Sequence[Shards], shares: Sequence[int]) -> None:
        self.parts, self.shares = list(parts), list(shares)
        self.path = ", ".join(f"{share} {part.path}" for part, share in zip(parts, shares, strict=True))
        told = "\n".join(f"{share} {part.fingerprint}" for part, share in zip(parts, shares, strict=True))
        self.fingerprint = hashlib.sha256(told.encode()).hexdigest()[:32]
        self.sizes = np.concatenate([part.sizes for part in parts])
        self._ends = np.cumsum(self.sizes)
        self._first_blocks = np.cumsum([0, *(len(part.blocks) for part in parts)]).tolist()
        self._first_ids = np.cumsum([0, *(part.sentences for part in parts)]).tolist()
        self.sentences: int = self._first_ids[-1]
        self.window_blocks = sum(part.window_blocks for part in parts)
        self.on_damage = self.parts[0].on_damage

    def order(self, seed: int) -> MixOrder:
        """Which sentence stands at which position of training."""
        orders = [part.order(key(seed, number)) for number, part in enumerate(self.parts)]
        return MixOrder(orders, self._first_ids, self.shares, seed)

    def tokens(self, tokenizer: Any, max_tokens: int) -> MixTokens | None:
        """The blocks' token ids, when all corpora have them."""
        found = [part.tokens(tokenizer, max_tokens) for part in self.parts]
        ready = [tokens for tokens in found if tokens is not None]
        return MixTokens(self, ready) if len(ready) == len(found) else None

    def find(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Blocks of sentences, and their lines there."""
        blocks = np.searchsorted(self._ends, ids, side="right")
        return blocks, ids - self._ends[blocks] + self.sizes[blocks]

    def first_id(self, block: int) -> int:
        """Id of the first sentence of a block."""
        return int(self._ends[block] - self.sizes[block])

    def part_of(self, block: int) -> tuple[int, int]:
        """The corpus of a block, and its number there."""
        part = int(np.searchsorted(self._first_blocks, block, side="right")) - 1
        return part, block - self._first_blocks[part]

    def read(self, block: int) -> list[str]:
        """The sentences of a block, verified."""
        part, inside = self.part_of(block)
        return self.parts[part].read(inside)

    def standin(self, block: int) -> int:
        """The block to read for this one, of the same corpus."""
        part, inside = self.part_of(block)
        return self._first_blocks[part] + self.parts[part].standin(inside)

    def head(self, n: int) -> list[str]:
        """The first n sentences, of each corpus its share."""
        total = sum(self.shares)
        shared = [
            part.head(-(-n * share // total)) for part, share in zip(self.parts, self.shares, strict=True)
        ]
        return [sentence for part in shared for sentence in part][:n]


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
        for number in np.unique(cycles).tolist():
            corpora, turns = self._lay_out(number)
            for corpus in np.unique(corpora[places[cycles == number]]).tolist():
                here = np.flatnonzero((cycles == number) & (corpora[places] == corpus))
                size = int(self.starts[corpus + 1] - self.starts[corpus])
                inside = number * size + turns[places[here]]
                ids[here] = self.orders[corpus].ids(inside) + self.first_ids[corpus]
        return ids

    def _lay_out(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each place of a cycle: its corpus, and how many of that corpus come before it in the cycle."""
        if self._last is None or self._last[0] != number:
            cycle = int(self.starts[-1])
            slots = permute(np.arange(cycle), cycle, key(self.seed, 2, number)).astype(np.int64)
            corpora = np.searchsorted(self.starts, slots, side="right") - 1
            turns = np.empty_like(corpora)
            turns[np.argsort(corpora, kind="stable")] = np.arange(cycle)
            self._last = number, corpora, turns - self.starts[corpora]
        return self._last[1], self._last[2]


class MixTokens:
    """Token ids by block over several corpora."""

    def __init__(self, mix: Mix, parts: Sequence[Ready]) -> None:
        self.mix, self.parts = mix, parts

    def read(self, block: int) -> Ragged:
        """The token ids of a block's sentences."""
        part, inside = self.mix.part_of(block)
        return self.parts[part].read(inside)


def open_corpus(
    shards: str, mix: str | None = None, on_damage: OnDamage = "stop", cache_gb: float = CACHE_GB
) -> Shards | Mix:
    """The corpus of a run: the folder `shards`, or instead `mix`: "3 data/wiki, 1 data/mine", shares and folders.

    Raises ValueError, one sentence, for a mix that is none, and what `Shards` raises.
    """
    if mix is None:
        return Shards(shards, on_damage, cache_gb)
    found: dict[str, int] = {}
    for item in mix.split(","):
        share, _, path = item.strip().partition(" ")
        path = path.strip()
        if not path or not share.isdecimal() or int(share) < 1 or path in found:
            raise UserError(
                f"data.mix = {mix} is no mix ({item.strip()!r}). "
                "Write whole shares and different folders: 3 data/wiki, 1 data/mine."
            )
        found[path] = int(share)
    if sum(found.values()) > SHARES:
        raise UserError(f"data.mix = {mix} has shares that sum to more than {SHARES:,}. Write smaller ones.")
    return Mix([Shards(path, on_damage, cache_gb) for path in found], list(found.values()))
