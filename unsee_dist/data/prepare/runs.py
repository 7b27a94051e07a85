"""SortedRun: a sorted part of the sentences on disk, each once, from which a range of hashes can be read.

    keys, texts | keys, texts | ... | table | facts | end

A row is a sentence: the two halves of its hash, ascending; how often the inputs have it; its text. The rows of some
FRAME_BYTES are a frame. Its keys are hashes and times, its texts lengths and text: two pieces, so that rows are found and
counted without their text. The table says which rows are in which frame, and where its pieces are. facts: JSON of whoever
wrote the run. Each of these is compressed by itself and has a checksum. A run gets its name when it is complete.

Numbers need 15 bytes a row. A run has one descriptor, while it is read and no longer: any number of them can be merged.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zstandard

from unsee_dist.errors import UserError
from unsee_dist.files import atomic

# For a small range a frame or two of each run are decompressed. Text of Wikipedia needs 48% of its size so, 46% in frames of
# 256 KiB, and 41% at level 3 in frames of 1 MiB, which takes twice the time.
FRAME_BYTES = 128 * 2**10
LEVEL = 1
NUMBER = np.dtype("<u8")
ROW_BYTES = 4 * NUMBER.itemsize  # of the numbers of a row
KEYS = 3  # numbers of a row that are its key
# Of the table, for each frame and for the end of the last one: the first half of its first hash, its first row, the bytes
# of text before it, and where its keys and its texts begin.
COLUMNS = 5
# Where the table and the facts begin, the numbers in the table, the bytes of the facts.
END = struct.Struct("<4Q")


class RunSize(NamedTuple):
    """How much is in a run."""

    rows: int
    text: int  # bytes


class RunRows(NamedTuple):
    """Some rows of a run without their texts, and their places in it."""

    high: np.ndarray
    low: np.ndarray
    times: np.ndarray
    place: np.ndarray


def _packed(numbers: np.ndarray) -> bytes:
    """The first bytes of all numbers, then all second bytes, ...: what is alike comes together, which saves 3 bytes a row."""
    return np.frombuffer(numbers.tobytes(), dtype=np.uint8).reshape(-1, NUMBER.itemsize).T.tobytes()


def _unpacked(data: bytes) -> np.ndarray:
    """The numbers, (n,)."""
    columns = np.frombuffer(data, dtype=np.uint8).reshape(NUMBER.itemsize, -1)
    return np.ascontiguousarray(columns.T).view(NUMBER).reshape(-1)


class RunWriter:
    """Writes a run part by part, in the order of the hashes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._compressor = zstandard.ZstdCompressor(LEVEL, write_checksum=True)
        self._table = array("Q")
        self._rows = self._text = 0

    def add(self, high: np.ndarray, low: np.ndarray, times: np.ndarray, texts: list[bytes]) -> None:
        """Append rows: (n,) numbers each, and their sentences."""
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        frame_of = np.cumsum(lengths + ROW_BYTES) // FRAME_BYTES
        starts = np.flatnonzero(np.diff(frame_of, prepend=-1))
        keys = np.stack([column.astype(NUMBER) for column in (high, low, times)])
        for start, stop in pairwise([*starts.tolist(), len(texts)]):
            self._add_frame(keys[:, start:stop], lengths[start:stop].astype(NUMBER), texts[start:stop])

    def finish(self, facts: bytes) -> None:
        """Write the table, the facts and the end, and bring the run to the disk."""
        end = self._file.tell()
        self._table.extend((0, self._rows, self._text, end, end))
        self._write(_packed(np.array(self._table, dtype=NUMBER)))
        ends = END.pack(end, self._file.tell(), len(self._table), len(facts))
        self._write(facts)
        self._file.write(ends)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _add_frame(self, keys: np.ndarray, lengths: np.ndarray, texts: list[bytes]) -> None:
        begin = self._file.tell()
        self._write(_packed(keys))
        self._table.extend((int(keys[0, 0]), self._rows, self._text, begin, self._file.tell()))
        self._write(b"".join([_packed(lengths), *texts]))
        self._rows, self._text = self._rows + len(texts), self._text + int(lengths.sum())

    def _write(self, piece: bytes) -> None:
        self._file.write(self._compressor.compress(piece))


@contextmanager
def new_run(path: Path) -> Iterator[RunWriter]:
    """A run to fill and finish, which gets its name when the block ends; when it raises, nothing is left."""
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.partial")
    writer = RunWriter(temporary)
    try:
        yield writer
    except BaseException:
        temporary.unlink(missing_ok=True)  # a full disk needs the room
        raise
    finally:
        writer.close()
    temporary.replace(path)
    atomic.sync_folder(path.parent)


@contextmanager
def opened_run(path: Path) -> Iterator[SortedRun]:
    """A run to read while the block runs. UserError, also in the block: it is damaged."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield SortedRun(path, descriptor)
    finally:
        os.close(descriptor)


def size_of(path: Path) -> RunSize:
    """How much is in a run."""
    with opened_run(path) as run:
        return run.size


class SortedRun:
    """A run that is open: what is not used of it is not read from disk."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        self._decompressor = zstandard.ZstdDecompressor()
        end = max(os.fstat(descriptor).st_size - END.size, 0)
        table, facts, numbers, size = END.unpack(os.pread(descriptor, END.size, end).ljust(END.size))
        if not table <= facts <= end:
            raise self._damage("its end has other bytes than were written")
        self._facts = facts, end, size
        columns = _unpacked(self._piece(table, facts, numbers * NUMBER.itemsize)).reshape(-1, COLUMNS).T
        self._high, self._row, self._text, self._keys, self._texts = columns.copy()
        self.size = RunSize(int(self._row[-1]), int(self._text[-1]))

    def between(self, first: int, last: int) -> RunRows:
        """The rows with first <= high <= last."""
        highs = self._high[:-1]
        # what is looked for may begin in the frame before the first one that begins with it
        start = max(int(np.searchsorted(highs, np.uint64(first), side="left")) - 1, 0)
        stop = int(np.searchsorted(highs, np.uint64(last), side="right"))
        frames = [np.empty((KEYS, 0), dtype=NUMBER), *map(self._keys_of, range(start, stop))]
        high, low, times = np.concatenate(frames, axis=1)
        inside = slice(
            int(np.searchsorted(high, np.uint64(first), side="left")),
            int(np.searchsorted(high, np.uint64(last), side="right")),
        )
        place = int(self._row[start]) + np.arange(inside.start, inside.stop)
        return RunRows(high[inside], low[inside], times[inside], place)

    def texts(self, places: np.ndarray) -> list[bytes]:
        """The sentences at these places, which are ascending. Each frame that has one of them is decompressed once."""
        frame_of = np.searchsorted(self._row[:-1], places.astype(NUMBER), side="right") - 1
        starts = np.flatnonzero(np.diff(frame_of, prepend=-1)).tolist()
        sentences: list[bytes] = []
        for start, stop in pairwise([*starts, len(places)]):
            sentences += self._texts_of(int(frame_of[start]), places[start:stop])
        return sentences

    def facts(self) -> bytes:
        return self._piece(*self._facts)

    def _keys_of(self, frame: int) -> np.ndarray:
        """High, low and times of a frame."""
        size = (int(self._row[frame + 1]) - int(self._row[frame])) * KEYS * NUMBER.itemsize
        return _unpacked(self._piece(int(self._keys[frame]), int(self._texts[frame]), size)).reshape(KEYS, -1)

    def _texts_of(self, frame: int, places: np.ndarray) -> list[bytes]:
        """The sentences at some places of a frame."""
        first, last = int(self._row[frame]), int(self._row[frame + 1])
        numbers = (last - first) * NUMBER.itemsize
        size = numbers + int(self._text[frame + 1]) - int(self._text[frame])
        data = self._piece(int(self._texts[frame]), int(self._keys[frame + 1]), size)
        lengths = _unpacked(data[:numbers]).astype(np.int64)
        ends = numbers + np.cumsum(lengths)
        rows = places - first
        stops = ends[rows]
        starts = stops - lengths[rows]
        return [data[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]

    def _piece(self, start: int, stop: int, size: int) -> bytes:
        """A piece of the file, decompressed. size: of it then, which a damaged one may not claim to be larger."""
        try:
            data = os.pread(self._descriptor, stop - start, start)
            if zstandard.frame_content_size(data) == size:
                return self._decompressor.decompress(data)
        except zstandard.ZstdError as error:
            raise self._damage(f"at byte {start}: {error}") from error
        raise self._damage(f"at byte {start}: not {size} bytes")

    def _damage(self, why: str) -> UserError:
        return UserError(
            f"{self._path} is damaged ({why}). Check the disk, delete {self._path.parent.parent}, and write the same command "
            "again."
        )
