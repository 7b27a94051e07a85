"""Blocks: where each block of a corpus lies, its checksum and its number of sentences.

    row of a block     offset (int64, bytes from the start of its shard) · xxh3 (uint64) · sentences (uint16): 18 bytes

A block ends where the next one of its shard begins, the last one where the shard ends. The rows of a small corpus are in
its index (ListedRows), those of a large one in a file (block_file.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from pydantic import ConfigDict, Field

from unsee_dist.config.prepare import BLOCK_SENTENCES
from unsee_dist.data.corpus.sizes import BlockSizes

STRICT = ConfigDict(strict=True, extra="forbid")
LENGTH = 1 << 36  # bytes of a block, less than that: all of an index together stay below 2^63
Count = Annotated[int, Field(ge=0, lt=1 << 40)]
Length = Annotated[int, Field(ge=0, lt=LENGTH)]
Offset = Annotated[int, Field(ge=0, lt=1 << 62)]
Xxh3 = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
ROW = np.dtype([("offset", "<i8"), ("xxh3", "<u8"), ("sentences", "<u2")])


class Block(NamedTuple):
    """Position, size and checksum of a block."""

    shard: str
    offset: int  # bytes from the start of the shard
    length: int  # bytes
    xxh3: str  # hex of the 64-bit checksum
    sentences: int


@dataclass(frozen=True)
class BlockColumns:
    """The blocks of a shard, as columns of equal length."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    offset: list[Offset]
    length: list[Length]
    xxh3: list[Xxh3]
    sentences: list[Annotated[int, Field(ge=1, le=BLOCK_SENTENCES)]]


@dataclass(frozen=True, slots=True)  # one a shard, as its entry: 0.3 kB each without slots
class BlockRows:
    """The blocks of a shard, whose rows are in a file: how many there are, and the checksum of the rows."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    number: Annotated[int, Field(ge=1, lt=1 << 40)]
    xxh3: Xxh3


class AnyEntry(Protocol):
    """An entry of the index of a corpus or of its tokens, whose blocks lie in one file: a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str: ...

    @property
    def blocks(self) -> BlockColumns | BlockRows: ...


class Rows(Protocol):
    """The rows of all blocks."""

    def of(self, shard: int) -> np.ndarray:
        """(blocks of the shard,) ROW."""
        ...


class ListedRows:
    """Rows in memory."""

    def __init__(self, shards: Sequence[BlockColumns]) -> None:
        self._first = _firsts([len(columns.offset) for columns in shards])
        self._rows = np.concatenate([as_rows(columns) for columns in shards])

    def of(self, shard: int) -> np.ndarray:
        return self._rows[self._first[shard] : self._first[shard + 1]]


def as_rows(columns: BlockColumns) -> np.ndarray:
    """(blocks,) ROW."""
    rows = np.empty(len(columns.offset), dtype=ROW)
    rows["offset"], rows["sentences"] = columns.offset, columns.sentences
    rows["xxh3"] = [int(checksum, 16) for checksum in columns.xxh3]
    return rows


class Layout:
    """The files of an index, and how many blocks each has. names: of the S files; bytes, sentences: (S,) of each;
    first: (S + 1,) the number of its first block."""

    def __init__(
        self, names: list[str], sizes: Sequence[int], sentences: Sequence[int], numbers: Sequence[int]
    ) -> None:
        self.names = names
        self.bytes, self.sentences = np.array(sizes, dtype=np.int64), np.array(sentences, dtype=np.int64)
        self.first = _firsts(numbers)


class Blocks:
    """All blocks of an index, looked up one by one."""

    def __init__(self, layout: Layout, rows: Rows) -> None:
        self.layout, self.rows = layout, rows
        self.sizes = _block_sizes(layout, rows)

    def __len__(self) -> int:
        return int(self.layout.first[-1])

    def __iter__(self) -> Iterator[Block]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, block: int) -> Block:
        shard = int(np.searchsorted(self.layout.first, block, side="right")) - 1
        rows, place = self.rows.of(shard), block - int(self.layout.first[shard])
        offset, xxh3, sentences = rows[place].item()
        end = int(rows["offset"][place + 1] if place + 1 < len(rows) else self.layout.bytes[shard])
        return Block(self.layout.names[shard], offset, end - offset, f"{xxh3:016x}", sentences)

    def of_shard(self, shard: int) -> range:
        """The numbers of the blocks of a shard."""
        return range(int(self.layout.first[shard]), int(self.layout.first[shard + 1]))


def _firsts(numbers: Sequence[int]) -> np.ndarray:
    return np.cumsum([0, *numbers], dtype=np.int64)


def _block_sizes(layout: Layout, rows: Rows) -> BlockSizes:
    """Reads the rows of those shards only that have a short block: of a corpus of `unsee prepare`, the last."""
    numbers = np.diff(layout.first)
    uneven = np.flatnonzero(layout.sentences != BLOCK_SENTENCES * numbers).tolist()
    sizes = [rows.of(shard)["sentences"].astype(np.int64) for shard in uneven]
    full = BLOCK_SENTENCES if len(uneven) < len(numbers) else max(int(each.max()) for each in sizes)
    places = [np.flatnonzero(each != full) for each in sizes]
    none = [np.empty(0, dtype=np.int64)]
    short = [layout.first[shard] + place for shard, place in zip(uneven, places, strict=True)]
    missing = [full - each[place] for each, place in zip(sizes, places, strict=True)]
    return BlockSizes(
        int(layout.first[-1]), full, np.concatenate(none + short), np.concatenate(none + missing)
    )
