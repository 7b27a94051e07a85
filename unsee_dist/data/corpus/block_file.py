"""The file of a large corpus's blocks: rows of fixed width beside the index, not JSON in it.

    DIR/blocks.npy     a header of 192 bytes, then the rows (blocks.py) of all shards, in order; `numpy.load` reads it
    DIR/index.json     of each shard, how many rows it has there, and their checksum

As JSON the blocks of 10^10 sentences are 0.9 GB of text, and gigabytes in every process that has parsed it. Here a process
reads the rows of a shard, 4.6 kB, when it reads a block of it, and verifies them. They are not mapped into memory: the
pages would stay with every process until all 176 MB are there, and of a file that somebody cuts, a read by position is a
sentence and a mapped page a SIGBUS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import xxhash

from unsee_dist.config.prepare import BLOCK_SENTENCES
from unsee_dist.data.corpus.blocks import LENGTH, ROW, AnyEntry, BlockColumns, BlockRows, Layout, as_rows
from unsee_dist.data.corpus.sizes import BlockSizes
from unsee_dist.data.corpus.store import Store
from unsee_dist.errors import UserError
from unsee_dist.files import atomic

BLOCKS = "blocks.npy"
LISTED_BLOCKS = 4096  # blocks that an index lists itself, at most: 4 million sentences, 300 kB
HEADER = 192  # bytes
ROWS_AT_ONCE = 1 << 18  # rows read at once: 4.7 MB

Entry = TypeVar("Entry", bound=AnyEntry)


def header(blocks: int) -> bytes:
    """The first bytes of the file, format 1.0 of numpy.lib.format: one spelling, so that it is compared, not parsed."""
    about = f"{{'descr': {ROW.descr!r}, 'fortran_order': False, 'shape': ({blocks},), }}"
    return (
        b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + about.ljust(HEADER - 11).encode() + b"\n"
    )


def write_apart(
    entries: Iterable[Entry], blocks: int, folder: Path, staging: Path | None = None
) -> list[Entry]:
    """The entries of an index, as they are; those of a large one, of so many blocks, with their blocks moved into the file.

    The entries are read one after the other: lists of 10 million blocks take gigabytes. OSError: it cannot be written.
    """
    if blocks <= LISTED_BLOCKS:
        return list(entries)
    kept: list[Entry] = []

    def pieces() -> Iterator[bytes]:
        yield header(blocks)
        for entry in entries:
            assert isinstance(entry.blocks, BlockColumns)
            rows = as_rows(entry.blocks)
            data = rows.tobytes()
            kept.append(replace(entry, blocks=BlockRows(len(rows), xxhash.xxh3_64_hexdigest(data))))
            yield data

    atomic.write_pieces(folder / BLOCKS, pieces(), staging)
    assert sum(entry.blocks.number for entry in kept if isinstance(entry.blocks, BlockRows)) == blocks
    return kept


class FiledRows:
    """The rows of a file, verified whenever they are read.

    sizes: of the blocks, where another index says them, too. remedy: what ends an error message.
    UserError: the file is missing, damaged or another index's; TransientError: it cannot be read now.
    """

    def __init__(
        self,
        store: Store,
        layout: Layout,
        shards: Iterable[BlockRows],
        remedy: str,
        sizes: BlockSizes | None = None,
    ) -> None:
        self.store, self.layout, self.sizes, self._remedy = store, layout, sizes, remedy
        self._xxh3 = np.array([int(each.xxh3, 16) for each in shards], dtype=np.uint64)
        self._last: tuple[int, np.ndarray] | None = None
        blocks = int(layout.first[-1])
        if self._bytes(0, HEADER) != header(blocks):
            raise self._damaged(f"it does not begin as a file of the {blocks:,} blocks of its index")

    def of(self, shard: int) -> np.ndarray:
        """(blocks of the shard,) ROW. A shard that is read block by block is looked up once."""
        if self._last is None or self._last[0] != shard:
            self._last = shard, self._kept(shard)
        return self._last[1]

    def _kept(self, shard: int) -> np.ndarray:
        """The rows of a shard, of a remote corpus from this machine where they were read here before."""
        cache, key = self.store.cache, f"rows-{self._xxh3[shard]:016x}"
        raw = cache.get(key) if cache else None
        if raw is not None and xxhash.xxh3_64_intdigest(raw) == self._xxh3[shard]:
            return self._checked(raw, shard, shard + 1)
        rows = self._read(shard, shard + 1)
        if cache:
            cache.put(key, rows.tobytes())
        return rows

    def verify(self) -> None:
        """Read all rows, some at a time."""
        first, shards = self.layout.first, len(self.layout.names)
        start = 0
        while start < shards:
            stop = int(np.searchsorted(first, first[start] + ROWS_AT_ONCE, side="right")) - 1
            stop = min(max(stop, start + 1), shards)
            self._read(start, stop)
            start = stop

    def _read(self, start: int, stop: int) -> np.ndarray:
        """The rows of the shards start..stop-1."""
        offset, end = (HEADER + ROW.itemsize * int(self.layout.first[shard]) for shard in (start, stop))
        with_end = stop == len(self.layout.names)  # then a byte more, which must not be there
        raw = self._bytes(offset, end - offset + with_end)
        if len(raw) > end - offset:
            raise self._damaged("it has bytes after its last row")
        return self._checked(raw, start, stop)

    def _checked(self, raw: bytes, start: int, stop: int) -> np.ndarray:
        view, first = memoryview(raw), self.layout.first[start : stop + 1]
        cuts = (ROW.itemsize * (first - first[0])).tolist()
        for shard, begin, end in zip(range(start, stop), cuts[:-1], cuts[1:], strict=True):
            if xxhash.xxh3_64_intdigest(view[begin:end]) != self._xxh3[shard]:
                name = self.layout.names[shard]
                raise self._damaged(f"the rows of {name} are not those that were written")
        if len(raw) != cuts[-1]:
            raise self._damaged("it ends before its last row")
        rows = np.frombuffer(raw, dtype=ROW)
        if not self._agrees(rows, start, stop):
            names = f"{self.layout.names[start]} to {self.layout.names[stop - 1]}"
            raise self._damaged(
                f"the rows of {names} do not fill these files, or have other sentences than their index"
            )
        return rows

    def _agrees(self, rows: np.ndarray, start: int, stop: int) -> bool:
        """Whether the blocks lie end to end in their files, and have the sentences that the index says."""
        first = self.layout.first[start : stop + 1] - self.layout.first[start]
        offset, sentences = rows["offset"].copy(), rows["sentences"].astype(np.int64)
        end = np.append(offset[1:], 0)
        end[first[1:] - 1] = self.layout.bytes[start:stop]
        return bool(
            (offset[first[:-1]] == 0).all()
            and (offset >= 0).all()
            and (end > offset).all()
            and (end - offset < LENGTH).all()
            and (sentences >= 1).all()
            and (sentences <= BLOCK_SENTENCES).all()
            and np.array_equal(np.add.reduceat(sentences, first[:-1]), self.layout.sentences[start:stop])
            and (self.sizes is None or np.array_equal(sentences, self._expected(start, stop)))
        )

    def _expected(self, start: int, stop: int) -> np.ndarray:
        assert self.sizes is not None
        return self.sizes.between(int(self.layout.first[start]), int(self.layout.first[stop]))

    def _bytes(self, offset: int, length: int) -> bytes:
        try:
            return self.store.read(BLOCKS, offset, length)
        except OSError as error:
            if (explained := self.store.explained(error, BLOCKS)) is not None:
                raise explained from error
            where, why = self.store.path_of(BLOCKS), error.strerror or str(error) or type(error).__name__
            raise UserError(f"{where} cannot be read ({why}). {self._remedy}") from error

    def _damaged(self, why: str) -> UserError:
        return UserError(f"{self.store.path_of(BLOCKS)} is damaged or was edited: {why}. {self._remedy}")
