"""Gather: the runs of all pieces to shards, in the order of the hash, each sentence once.

    count    a range of hashes at a time: how many different sentences, and a mark at every 1,024th of them
    place    marks to positions: a shard starts at some mark's position, or a little behind
    fetch    a shard at a time: the hashes between two marks from every run, sorted, once each, cut, written

No sentence's text is read before its shard is written, and memory is that of a shard or of a range, whatever the
corpus. The order is that of the hashes alone: any number of runs, ranges and processes gives the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from unsee_dist.data.corpus import shard_writer
from unsee_dist.data.prepare.sort import Run, open_run
from unsee_dist.files import atomic

MARK = 1024  # sentences between marks
RANGE = 4_000_000  # hashes counted at once: some 300 MB
HASHES = 1 << 64

Hash = tuple[int, int]  # high, low


class Counting(NamedTuple):
    """One task: the hashes of the runs with first <= high < last."""

    runs: list[Path]
    first: int
    last: int
    held: frozenset[Hash]


class Counted(NamedTuple):
    """Of a range: different sentences kept, what was dropped, and the hash of every MARK-th kept one."""

    kept: int
    dropped: dict[str, int]
    marks: list[Hash]


class Fetching(NamedTuple):
    """One task: a shard of the `take` sentences that follow the first `skip` from the hash `first` on.

    last: a hash behind them; None = there is none.
    """

    runs: list[Path]
    first: Hash
    last: Hash | None
    skip: int
    take: int
    held: frozenset[Hash]
    shard: Path
    entry: Path
    first_block: int
    kind: str


class _Found(NamedTuple):
    """Different hashes of a range, ascending: where one of each lies (run, place there), and how often it occurs."""

    high: np.ndarray
    low: np.ndarray
    run: np.ndarray
    place: np.ndarray
    times: np.ndarray
    kept: np.ndarray  # bool: not held out


def ranges(records: int) -> list[tuple[int, int]]:
    """Ranges of hashes with about RANGE of the records each."""
    cuts = -(-records // RANGE) or 1
    return list(pairwise(HASHES * i // cuts for i in range(cuts + 1)))


def hashed(sentence: str, seed: int) -> Hash:
    """The hash that a run has of a sentence."""
    return divmod(xxhash.xxh3_128_intdigest(sentence.encode(), seed=seed), HASHES)


def count(task: Counting) -> Counted:
    """How many sentences a range holds."""
    found = _find([open_run(path) for path in task.runs], task.first, task.last - 1, task.held)
    dropped = Counter(
        {
            "duplicate": int((found.times[found.kept] - 1).sum()),
            "held out": int(found.times[~found.kept].sum()),
        }
    )
    high, low = found.high[found.kept][::MARK].tolist(), found.low[found.kept][::MARK].tolist()
    return Counted(int(found.kept.sum()), dict(+dropped), list(zip(high, low, strict=True)))


def place(counted: Sequence[Counted], shard_sentences: int) -> list[tuple[Hash, Hash | None, int, int]]:
    """(first, last, skip, take) of every shard, see Fetching."""
    bases = np.cumsum([0, *(part.kept for part in counted)])
    marks = [mark for part in counted for mark in part.marks]
    positions = np.concatenate(
        [base + MARK * np.arange(len(part.marks)) for base, part in zip(bases, counted, strict=False)]
    )
    found = []
    for start in range(0, int(bases[-1]), shard_sentences):
        end = min(start + shard_sentences, int(bases[-1]))
        mark = int(np.searchsorted(positions, start, side="right")) - 1
        behind = int(np.searchsorted(positions, end, side="left"))
        last = marks[behind] if behind < len(marks) else None
        found.append((marks[mark], last, start - int(positions[mark]), end - start))
    return found


def fetch(task: Fetching) -> dict[str, Any]:
    """Write a shard, then its entry of the index, which says that it is complete. Returns the entry."""
    runs = [open_run(path) for path in task.runs]
    found = _find(runs, task.first[0], task.last[0] if task.last else HASHES - 1, task.held)
    inside = found.kept & (
        (found.high > task.first[0]) | ((found.high == task.first[0]) & (found.low >= task.first[1]))
    )
    chosen = np.flatnonzero(inside)[task.skip : task.skip + task.take]
    assert len(chosen) == task.take
    sentences = _texts(runs, found.run[chosen], found.place[chosen])
    data, entry = shard_writer.shard(task.shard.name, sentences, task.first_block, task.kind)
    atomic.write_file(task.shard, data, staging=task.entry.parent)
    atomic.write_file(task.entry, json.dumps(entry).encode())
    return entry


def _find(runs: list[Run], first: int, last: int, held: frozenset[Hash]) -> _Found:
    """All hashes with first <= high <= last."""
    parts = []
    for number, run in enumerate(runs):
        start = int(np.searchsorted(run.high, np.uint64(first), side="left"))
        end = int(np.searchsorted(run.high, np.uint64(last), side="right"))
        if end > start:
            numbers = np.full(end - start, number, dtype=np.int32)
            here = slice(start, end)
            parts.append((run.high[here], run.low[here], numbers, np.arange(start, end), run.times[here]))
    if not parts:
        none = np.empty(0, dtype=np.uint64)
        return _Found(none, none, none, none, none, np.empty(0, dtype=bool))
    high, low, number_of, place_of, times = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((number_of, low, high))
    high, low = high[order], low[order]
    new = np.ones(len(high), dtype=bool)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    starts = np.flatnonzero(new)
    total = np.add.reduceat(times[order].astype(np.int64), starts)
    high, low, order = high[starts], low[starts], order[starts]
    kept = np.ones(len(high), dtype=bool)
    for held_high, held_low in held:
        at = int(np.searchsorted(high, np.uint64(held_high)))
        while at < len(high) and high[at] == np.uint64(held_high):
            kept[at] &= bool(low[at] != np.uint64(held_low))
            at += 1
    return _Found(high, low, number_of[order], place_of[order], total, kept)


def _texts(runs: list[Run], run_of: np.ndarray, place_of: np.ndarray) -> list[bytes]:
    """The sentences at these places of these runs."""
    sentences: list[bytes] = [b""] * len(run_of)
    for number in np.unique(run_of):
        run, wanted = runs[number], np.flatnonzero(run_of == number)
        places = place_of[wanted]
        low, high = int(places.min()), int(places.max())
        ends = run.ends[max(low - 1, 0) : high + 1].astype(np.int64)
        ends = ends if low else np.insert(ends, 0, 0)
        base = int(ends[0])
        text = run.text[base : int(ends[-1])].tobytes()
        starts, stops = ends[places - low] - base, ends[places - low + 1] - base
        for at, start, stop in zip(wanted.tolist(), starts.tolist(), stops.tolist(), strict=True):
            sentences[at] = text[start:stop]
    return sentences
