"""Merge: the runs of all splits become shards, in the order of the hash, each sentence once.

    merge_runs    some runs to one, where there are more than FAN_IN of them
    count_range   a range of hashes at a time: the number of different sentences, and a mark at every 1,024th of them
    plan_shards   marks to positions: a shard starts at the position of a mark, or a little after it
    write_shard   a shard at a time: the hashes between two marks from every run, sorted, once each, cut, written

Memory is that of a shard or of a range, for any size of the corpus, and one run is open at a time. The order is that of
the hashes: any number of runs, passes, ranges and processes gives the same bytes.
"""

from __future__ import annotations

import json
import math
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
from unsee_dist.data.prepare.runs import new_run, opened_run, size_of
from unsee_dist.files import atomic

MARK = 1024  # sentences between marks
RANGE = 4_000_000  # hashes counted at once: some 300 MB
FAN_IN = 256  # runs merged at once: every shard opens all that are left
STEP_BYTES = 48 * 2**20  # of text, merged at once
HASHES = 1 << 64

Hash = tuple[int, int]  # high, low


class MergeTask(NamedTuple):
    """One task: merge the runs into one, and remove them."""

    runs: list[Path]
    merged: Path


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
    marks: np.ndarray  # (n, 2) uint64: high, low


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


def groups(runs: int) -> list[tuple[int, int]]:
    """The first and the last + 1 of each group of runs that becomes one: of about equal size, and as many groups as runs in
    a group where that is enough, so that both passes read in long pieces."""
    size = min(FAN_IN, math.isqrt(runs - 1) + 1)
    number = -(-runs // size)
    return list(pairwise(runs * i // number for i in range(number + 1)))


def merge_runs(task: MergeTask) -> None:
    """Merge runs in ranges of STEP_BYTES of text."""
    if task.merged.exists():  # Ray repeats a task whose worker died
        remove(task.runs)
        return
    rows, text = map(sum, zip(*map(size_of, task.runs), strict=True))
    with new_run(task.merged) as merged:
        for first, last in _cuts(max(text // STEP_BYTES, rows * 4 // RANGE) + 1):
            unique = _merge_range(task.runs, first, last - 1, frozenset())
            merged.add(unique.high, unique.low, unique.times, _texts(task.runs, unique.run, unique.place))
        merged.finish(b"")
    remove(task.runs)


def remove(runs: Sequence[Path]) -> None:
    """Remove runs that were merged."""
    for run in runs:
        run.unlink(missing_ok=True)


def ranges(sentences: int) -> list[tuple[int, int]]:
    """Ranges of hashes with about RANGE of the sentences each."""
    return _cuts(-(-sentences // RANGE) or 1)


def _cuts(number: int) -> list[tuple[int, int]]:
    """All hashes in so many ranges of one size: first, last + 1."""
    return list(pairwise(HASHES * i // number for i in range(number + 1)))


def hash_of(sentence: str, seed: int) -> Hash:
    """The hash of a sentence in a run."""
    return divmod(xxhash.xxh3_128_intdigest(sentence.encode(), seed=seed), HASHES)


def count_range(task: CountTask) -> RangeCount:
    """Count the sentences of a range."""
    unique = _merge_range(task.runs, task.first, task.last - 1, task.held)
    dropped = Counter(
        {
            "duplicate": int((unique.times[unique.kept] - 1).sum()),
            "held out": int(unique.times[~unique.kept].sum()),
        }
    )
    marks = np.stack([unique.high[unique.kept][::MARK], unique.low[unique.kept][::MARK]], axis=1)
    return RangeCount(int(unique.kept.sum()), dict(+dropped), marks)


def plan_shards(
    counted: Sequence[RangeCount], shard_sentences: int
) -> list[tuple[Hash, Hash | None, int, int]]:
    """(first, last, skip, count) of every shard, see ShardTask."""
    bases = np.cumsum([0, *(part.kept for part in counted)])
    marks = np.concatenate([part.marks for part in counted])
    positions = np.concatenate(
        [base + MARK * np.arange(len(part.marks)) for base, part in zip(bases, counted, strict=False)]
    )

    def mark_at(number: int) -> Hash:
        return int(marks[number, 0]), int(marks[number, 1])

    shards = []
    for start in range(0, int(bases[-1]), shard_sentences):
        end = min(start + shard_sentences, int(bases[-1]))
        mark = int(np.searchsorted(positions, start, side="right")) - 1
        after = int(np.searchsorted(positions, end, side="left"))
        last = mark_at(after) if after < len(marks) else None
        shards.append((mark_at(mark), last, start - int(positions[mark]), end - start))
    return shards


def write_shard(task: ShardTask) -> ShardEntry:
    """Write a shard, then its entry of the index, which marks it as complete. Returns the entry."""
    unique = _merge_range(task.runs, task.first[0], task.last[0] if task.last else HASHES - 1, task.held)
    inside = unique.kept & (
        (unique.high > task.first[0]) | ((unique.high == task.first[0]) & (unique.low >= task.first[1]))
    )
    chosen = np.flatnonzero(inside)[task.skip : task.skip + task.sentences]
    assert len(chosen) == task.sentences
    texts = _texts(task.runs, unique.run[chosen], unique.place[chosen])
    data, entry = shard_writer.shard(task.shard.name, texts, task.first_block, task.kind)
    atomic.write_file(task.shard, data, staging=task.entry.parent)
    atomic.write_file(task.entry, json.dumps(asdict(entry)).encode())
    return entry


def _merge_range(paths: Sequence[Path], first: int, last: int, held: frozenset[Hash]) -> _UniqueHashes:
    """All hashes with first <= high <= last."""
    parts = []
    for number, path in enumerate(paths):
        with opened_run(path) as run:
            rows = run.between(first, last)
        if count := len(rows.high):
            parts.append((rows.high, rows.low, rows.times, np.full(count, number, np.int32), rows.place))
    if not parts:
        empty = np.empty(0, dtype=np.uint64)
        return _UniqueHashes(empty, empty, empty, empty, empty, np.empty(0, dtype=bool))
    high, low, times, run_of, place_of = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = _order(high, low)
    high, low = high[order], low[order]
    new = np.ones(len(high), dtype=bool)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    starts = np.flatnonzero(new)
    total = np.add.reduceat(times[order].astype(np.int64), starts)
    high, low, order = high[starts], low[starts], order[starts]
    return _UniqueHashes(high, low, run_of[order], place_of[order], total, _not_held(high, low, held))


def _order(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """The order of the hashes; equal ones keep theirs, which is that of the runs.

    By the first half alone, which timsort does fast for what is sorted in parts; hashes that share it are rare.
    """
    order = np.argsort(high, kind="stable")
    ordered_high, ordered_low = high[order], low[order]
    same = ordered_high[1:] == ordered_high[:-1]
    if np.any(same & (ordered_low[1:] < ordered_low[:-1])):
        return np.lexsort((low, high))
    return order


def _not_held(high: np.ndarray, low: np.ndarray, held: frozenset[Hash]) -> np.ndarray:
    """Which of the hashes are not held out."""
    kept = np.ones(len(high), dtype=bool)
    for held_high, held_low in held:
        row = int(np.searchsorted(high, np.uint64(held_high)))
        while row < len(high) and high[row] == np.uint64(held_high):
            kept[row] &= bool(low[row] != np.uint64(held_low))
            row += 1
    return kept


def _texts(paths: Sequence[Path], run_of: np.ndarray, place_of: np.ndarray) -> list[bytes]:
    """The sentences at these places of these runs."""
    sentences = np.empty(len(run_of), dtype=object)
    by_run = np.argsort(run_of, kind="stable")
    cuts = np.flatnonzero(np.diff(run_of[by_run])) + 1
    for chosen in np.split(by_run, cuts) if len(by_run) else []:
        with opened_run(paths[int(run_of[chosen[0]])]) as run:
            sentences[chosen] = run.texts(place_of[chosen])
    return sentences.tolist()
