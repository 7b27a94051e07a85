"""Run: a sorted part of the sentences on disk, each once, from which a range of hashes can be read.

    head (PAGE bytes): {"rows": n, "room": r, "text": bytes}
    high (r) | low (r) | ends (r) | times (r), each uint64 | text: the sentences end to end | facts

A row is a sentence: the two halves of its hash, ascending; where its text ends; how often the inputs have it. The columns
have room for r >= n rows: a merge knows only at its end how many are left, and the rest is a hole that needs no space on
disk. facts: JSON of whoever wrote the run. A run gets its name when it is complete.

A run has one descriptor, while it is read and no longer: any number of them can be merged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unsee_dist.files import atomic

PAGE = 4096
NUMBER = np.dtype("<u8")
COLUMNS = 4


class Size(NamedTuple):
    """The head of a run."""

    rows: int
    room: int
    text: int  # bytes


def text_start(room: int) -> int:
    """Where the text of a run begins."""
    return PAGE + room * COLUMNS * NUMBER.itemsize


class RunWriter:
    """Writes a run part by part, in the order of the hashes."""

    def __init__(self, path: Path, room: int) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        self.room, self.rows, self.text = room, 0, 0

    def add(self, high: np.ndarray, low: np.ndarray, times: np.ndarray, texts: list[bytes]) -> None:
        """Append rows: (n,) numbers each, and their sentences."""
        lengths = np.fromiter(map(len, texts), dtype=NUMBER, count=len(texts))
        ends = np.cumsum(lengths, dtype=NUMBER) + np.uint64(self.text)
        for place, column in enumerate((high, low, ends, times)):
            start = PAGE + (place * self.room + self.rows) * NUMBER.itemsize
            self._write(column.astype(NUMBER, copy=False).tobytes(), start)
        data = b"".join(texts)
        self._write(data, text_start(self.room) + self.text)
        self.rows, self.text = self.rows + len(texts), self.text + len(data)

    def finish(self, facts: bytes) -> None:
        """Write the facts and the head, and bring the run to the disk."""
        self._write(facts, text_start(self.room) + self.text)
        head = json.dumps(Size(self.rows, self.room, self.text)._asdict()).encode()
        self._write(head.ljust(PAGE), 0)
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def _write(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:  # a system call writes 2 GiB at most
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written


@contextmanager
def new_run(path: Path, room: int) -> Iterator[RunWriter]:
    """A run to fill and finish, which gets its name when the block ends; when it raises, nothing is left."""
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.partial")
    writer = RunWriter(temporary, room)
    try:
        yield writer
    except BaseException:
        temporary.unlink(missing_ok=True)  # a full disk needs the room
        raise
    finally:
        writer.close()
    temporary.replace(path)
    atomic.sync_folder(path.parent)


class Run:
    """A run, mapped into memory while this object lives: what is not used of it is not read from disk."""

    def __init__(self, path: Path) -> None:
        data = np.memmap(path, dtype=np.uint8, mode="r")
        self.size = Size(**json.loads(data[:PAGE].tobytes()))
        start = text_start(self.size.room)
        columns = data[PAGE:start].view(NUMBER).reshape(COLUMNS, self.size.room)[:, : self.size.rows]
        self.high, self.low, self.ends, self.times = columns
        self.text = data[start : start + self.size.text]
        self._facts = data[start + self.size.text :]

    def rows_between(self, first: int, last: int) -> slice:
        """The places of the rows with first <= high <= last."""
        start = int(np.searchsorted(self.high, np.uint64(first), side="left"))
        end = int(np.searchsorted(self.high, np.uint64(last), side="right"))
        return slice(start, end)

    def texts(self, places: np.ndarray) -> list[bytes]:
        """The sentences at these places, at least one; what is between them is read, too."""
        low, high = int(places.min()), int(places.max())
        ends = self.ends[max(low - 1, 0) : high + 1].astype(np.int64)
        ends = ends if low else np.insert(ends, 0, 0)
        base = int(ends[0])
        text = self.text[base : int(ends[-1])].tobytes()
        starts, stops = ends[places - low] - base, ends[places - low + 1] - base
        return [text[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]

    def facts(self) -> bytes:
        return self._facts.tobytes()
