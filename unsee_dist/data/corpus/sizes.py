"""Sizes: how many sentences each block has, and where its ids begin.

Nearly all blocks of a corpus are full. So only the short ones are stored, and memory is O(short blocks): a corpus of
10^10 sentences has 9.8 million blocks, of which `unsee prepare` leaves one short.

    first id of block b = b·F - M(b)        F: of a full block; M(b): what the short blocks before b lack of F
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class BlockSizes:
    """The sentences of every block, in the corpus's order.

    full: of the largest block; short: (n,) the numbers of the blocks that have fewer, ascending; missing: (n,) what each of
    those lacks.
    """

    def __init__(self, blocks: int, full: int, short: np.ndarray, missing: np.ndarray) -> None:
        self.blocks, self.full = blocks, full
        self.short, self.missing = short.astype(np.int64), missing.astype(np.int64)
        self._missing_before = np.concatenate([[0], np.cumsum(self.missing)])
        self._ends = (self.short + 1) * full - self._missing_before[1:]  # the id after each short block
        self.sentences = blocks * full - int(self._missing_before[-1])

    @classmethod
    def of(cls, sizes: np.ndarray) -> BlockSizes:
        """From the size of every block."""
        sizes = np.asarray(sizes, dtype=np.int64)
        full = int(sizes.max(initial=0))
        short = np.flatnonzero(sizes != full)
        return cls(len(sizes), full, short, full - sizes[short])

    @classmethod
    def joined(cls, parts: Sequence[BlockSizes]) -> BlockSizes:
        """Of the blocks of all parts, one part after the other."""
        full = max(part.full for part in parts)
        firsts = np.cumsum([0, *(len(part) for part in parts)])
        short, missing = zip(*(part._against(full) for part in parts), strict=True)
        moved = [each + first for each, first in zip(short, firsts[:-1], strict=True)]
        return cls(int(firsts[-1]), full, np.concatenate(moved), np.concatenate(missing))

    def _against(self, full: int) -> tuple[np.ndarray, np.ndarray]:
        """The short blocks and what they lack, where a full one has so many sentences."""
        if full == self.full:
            return self.short, self.missing
        missing = np.full(self.blocks, full - self.full)
        missing[self.short] += self.missing
        return np.arange(self.blocks), missing

    def __len__(self) -> int:
        return self.blocks

    def __getitem__(self, block: int) -> int:
        place = int(np.searchsorted(self.short, block))
        is_short = place < len(self.short) and self.short[place] == block
        return self.full - int(self.missing[place]) if is_short else self.full

    def first_ids(self, blocks: np.ndarray) -> np.ndarray:
        """The id of the first sentence of each of these blocks."""
        return blocks * self.full - self._missing_before[np.searchsorted(self.short, blocks)]

    def find(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Blocks of sentences, and their lines there."""
        missing = self._missing_before[np.searchsorted(self._ends, ids, side="right")]
        blocks, lines = np.divmod(ids + missing, self.full)
        return blocks, lines

    def between(self, first: int, last: int) -> np.ndarray:
        """(last - first,) the sentences of each of the blocks first..last-1."""
        sizes = np.full(last - first, self.full)
        chosen = slice(*np.searchsorted(self.short, (first, last)))
        sizes[self.short[chosen] - first] -= self.missing[chosen]
        return sizes
