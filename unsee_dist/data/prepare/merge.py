"""Merge: the runs of all splits become shards, in the order of the hash, each sentence once.

    count_range   a range of hashes at a time: the number of different sentences, and a mark at every 1,024th of them
    plan_shards   marks to positions: a shard starts at the position of a mark, or a little after it
    write_shard   a shard at a time: the hashes between two marks from every run, sorted, once each, cut, written

The text of a sentence is read only when its shard is written. Memory is that of a shard or of a range, for any size
of the corpus. The order is that of the hashes: any number of runs, ranges and processes gives the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from unsee_dist.data.corpus import shard_writer
from unsee_dist.data.corpus.index import ShardEntry
from unsee_dist.data.prepare.sort import Run, open_run
from unsee_dist.files import atomic

MARK = 1024  # sentences between marks
RANGE = 4_000_000  # hashes counted at once: some 300 MB
HASHES = 1 << 64

Hash = tuple[int, int]  # high, low


class CountTask(NamedTuple):
    """One task: count the hashes of the runs with first <= high < last. held: hashes of held-out sentences."""

    runs: list[Path]
    first: int
    last: int
    held: frozenset[Hash]


class RangeCount(NamedTuple):
    """The counts of a range: different sentences kept, sentences dropped by reason; the hash of every MARK-th kept one."""

    kept: int
    dropped: dict[str, int]
    marks: list[Hash]


class ShardTask(NamedTuple):
    """One task: write a shard of `sentences` sentences, after the first `skip` ones from the hash `first` on.

    last: a hash after them; None = there is none.
    """

    runs: list[Path]
    first: Hash
    last: Hash | None
    skip: int
    sentences: int
    held: frozenset[Hash]
    shard: Path
    entry: Path
    first_block: int
    kind: str


class _UniqueHashes(NamedTuple):
    """The different hashes of a range, ascending: the run and place of one copy of each, and how often it occurs."""

    high: np.ndarray
    low: np.ndarray
    run: np.ndarray
    place: np.ndarray
    times: np.ndarray
    kept: np.ndarray  # bool: not held out


def ranges(sentences: int) -> list[tuple[int, int]]:
    """Ranges of hashes with about RANGE of the sentences each."""
    cuts = -(-sentences // RANGE) or 1
    return list(pairwise(HASHES * i // cuts for i in range(cuts + 1)))


def hash_of(sentence: str, seed: int) -> Hash:
    """The hash of a sentence in a run."""
    return divmod(xxhash.xxh3_128_intdigest(sentence.encode(), seed=seed), HASHES)


def count_range(task: CountTask) -> RangeCount:
    """Count the sentences of a range."""
    unique = _merge_range([open_run(path) for path in task.runs], task.first, task.last - 1, task.held)
    dropped = Counter(
        {
            "duplicate": int((unique.times[unique.kept] - 1).sum()),
            "held out": int(unique.times[~unique.kept].sum()),
        }
    )
    high, low = unique.high[unique.kept][::MARK].tolist(), unique.low[unique.kept][::MARK].tolist()
    return RangeCount(int(unique.kept.sum()), dict(+dropped), list(zip(high, low, strict=True)))


def plan_shards(
    counted: Sequence[RangeCount], shard_sentences: int
) -> list[tuple[Hash, Hash | None, int, int]]:
    """(first, last, skip, count) of every shard, see ShardTask."""
    bases = np.cumsum([0, *(part.kept for part in counted)])
    marks = [mark for part in counted for mark in part.marks]
    positions = np.concatenate(
        [base + MARK * np.arange(len(part.marks)) for base, part in zip(bases, counted, strict=False)]
    )
    shards = []
    for start in range(0, int(bases[-1]), shard_sentences):
        end = min(start + shard_sentences, int(bases[-1]))
        mark = int(np.searchsorted(positions, start, side="right")) - 1
        after = int(np.searchsorted(positions, end, side="left"))
        last = marks[after] if after < len(marks) else None
        shards.append((marks[mark], last, start - int(positions[mark]), end - start))
    return shards


def write_shard(task: ShardTask) -> ShardEntry:
    """Write a shard, then its entry of the index, which marks it as complete. Returns the entry."""
    runs = [open_run(path) for path in task.runs]
    unique = _merge_range(runs, task.first[0], task.last[0] if task.last else HASHES - 1, task.held)
    inside = unique.kept & (
        (unique.high > task.first[0]) | ((unique.high == task.first[0]) & (unique.low >= task.first[1]))
    )
    chosen = np.flatnonzero(inside)[task.skip : task.skip + task.sentences]
    assert len(chosen) == task.sentences
    texts = _texts(runs, unique.run[chosen], unique.place[chosen])
    data, entry = shard_writer.shard(task.shard.name, texts, task.first_block, task.kind)
    atomic.write_file(task.shard, data, staging=task.entry.parent)
    atomic.write_file(task.entry, json.dumps(asdict(entry)).encode())
    return entry


def _merge_range(runs: list[Run], first: int, last: int, held: frozenset[Hash]) -> _UniqueHashes:
    """All hashes with first <= high <= last."""
    parts = []
    for number, run in enumerate(runs):
        start = int(np.searchsorted(run.high, np.uint64(first), side="left"))
        end = int(np.searchsorted(run.high, np.uint64(last), side="right"))
        if end > start:
            numbers = np.full(end - start, number, dtype=np.int32)
            rows = slice(start, end)
            parts.append((run.high[rows], run.low[rows], numbers, np.arange(start, end), run.times[rows]))
    if not parts:
        empty = np.empty(0, dtype=np.uint64)
        return _UniqueHashes(empty, empty, empty, empty, empty, np.empty(0, dtype=bool))
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
        row = int(np.searchsorted(high, np.uint64(held_high)))
        while row < len(high) and high[row] == np.uint64(held_high):
            kept[row] &= bool(low[row] != np.uint64(held_low))
            row += 1
    return _UniqueHashes(high, low, number_of[order], place_of[order], total, kept)


def _texts(runs: list[Run], run_of: np.ndarray, place_of: np.ndarray) -> list[bytes]:
    """The sentences at these places of these runs."""
    sentences: list[bytes] = [b""] * len(run_of)
    for number in np.unique(run_of):
        run, chosen = runs[number], np.flatnonzero(run_of == number)
        places = place_of[chosen]
        low, high = int(places.min()), int(places.max())
        ends = run.ends[max(low - 1, 0) : high + 1].astype(np.int64)
        ends = ends if low else np.insert(ends, 0, 0)
        base = int(ends[0])
        text = run.text[base : int(ends[-1])].tobytes()
        starts, stops = ends[places - low] - base, ends[places - low + 1] - base
        for index, start, stop in zip(chosen.tolist(), starts.tolist(), stops.tolist(), strict=True):
            sentences[index] = text[start:stop]
    return sentences
