"""Stages of a preparation, in its work folder. Each skips what is there already, so that a killed one continues.

    run-000042, run-1-000003   runs, and runs of the first pass of merging
    sorted.json                all runs are there: their number, and what was counted while they were written
    shard-000007.tar.json      the entry of a complete shard in the index

A file gets its name when it is complete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from unsee_dist.config.prepare import BLOCK_SENTENCES
from unsee_dist.data.corpus.block_file import write_apart
from unsee_dist.data.corpus.entries import LISTED, number_of
from unsee_dist.data.corpus.index import (
    INDEX,
    SHARD_ENTRY,
    SIZES,
    CorpusIndex,
    ShardEntry,
    fingerprint,
    sealed,
)
from unsee_dist.data.prepare import holdout, merge, sources
from unsee_dist.data.prepare.bad_records import FIRST, BadRecords
from unsee_dist.data.prepare.left_out import LeftOut
from unsee_dist.data.prepare.plan import PreparationPlan, as_json, remove_output, remove_work
from unsee_dist.data.prepare.report import ADVICE, Bar, most_dropped
from unsee_dist.data.prepare.runs import size_of
from unsee_dist.data.prepare.sort import SortTask, facts_of, sort_splits
from unsee_dist.data.processes import TaskRunner, run_serially
from unsee_dist.errors import UserError
from unsee_dist.files import atomic

Result = TypeVar("Result")
DEV = "dev.tsv"
NEIGHBOURS = "dev-neighbours.tsv"
SORTED = "sorted.json"
# Small inputs share a task of at least this part of all bytes: so many tasks for so many processes.
SHARES = 64


@dataclass(frozen=True)
class Sorted:
    """sorted.json: the runs that are left after some passes of merging, and the counts of all that was read."""

    runs: int
    passes: int
    counts: dict[str, int]
    pairs: list[holdout.Pair]
    bad: list[str]

    def paths(self, work: Path) -> list[Path]:
        return [_run(work, self.passes, number) for number in range(self.runs)]


SORTED_ADAPTER = TypeAdapter(Sorted)


class Preparation:
    """A running preparation."""

    def __init__(self, out: Path, work: Path, plan: PreparationPlan, run_tasks: TaskRunner, bar: Bar) -> None:
        self.out, self.work, self.plan = out, work, plan
        self.settings, self.run_tasks, self.bar = plan.settings, run_tasks, bar

    def write(self, names: list[str], split_bytes: int, left_out: LeftOut) -> CorpusIndex:
        """Run all stages on these inputs. Returns the index."""
        done = self.merged(self.sorted(names, split_bytes))
        runs, counts = done.paths(self.work), Counter(done.counts)
        if len(runs) == 1:
            self.run_tasks = run_serially  # it is faster than starting a process
        held_out = (sentence for pair in done.pairs for sentence in pair.sentences)
        held = frozenset(merge.hash_of(sentence, self.settings.seed) for sentence in held_out)
        counted = self.count_ranges(runs, held)
        for each in counted:
            counts.update(each.dropped)
        if not sum(each.kept for each in counted):
            remove_output(self.out)
            raise UserError(_nothing_left(counts, done.bad))
        shards = self.write_shards(runs, counted, held)
        about: dict[str, object] = {"counters": dict(sorted(counts.items()))}
        about |= {"bad_records": done.bad} if done.bad else {}
        about |= {"left_out": reasons} if (reasons := left_out.as_dict()) else {}
        return self.finish(shards, done.pairs, about)

    def sorted(self, names: list[str], split_bytes: int) -> Sorted:
        """Write a run of every part of the inputs."""
        if (self.work / SORTED).exists():
            return _of_work(self.work / SORTED, SORTED_ADAPTER)
        total = sum(source.bytes for source in self.plan.inputs)
        advance = self.bar.stage("reading", total, "bytes")
        bad = BadRecords(self.settings.on_bad_record == "skip")
        runs: list[Path] = []

        def tasks() -> Iterator[SortTask]:
            splits = sources.input_splits(names, self.settings.field, split_bytes, advance, bad)
            for group in sources.together(splits, min(split_bytes, total // SHARES)):
                runs.append(_run(self.work, 0, len(runs)))
                if not runs[-1].exists():
                    yield SortTask(group, runs[-1], self.settings)

        for _ in self.run_tasks(sort_splits, tasks()):
            pass
        if missing := next((run for run in runs if not run.exists()), None):
            raise UserError(
                f"{missing} was written on another machine and does not exist here. "
                "Choose an --out on a file system that all machines of the Ray cluster share."
            )
        return self.save(self.facts_of(runs))

    def facts_of(self, runs: list[Path]) -> Sorted:
        """The counts of all runs together, and the pairs that are held out. UserError: there are too few."""
        counts, bad = Counter[str](), list[str]()
        held = holdout.HeldOut(self.settings.dev)
        for run in runs:
            facts = facts_of(run)
            counts.update(facts.counts)
            bad = (bad + facts.bad)[:FIRST]
            held.add(facts.pairs)
        try:
            pairs = held.pairs() if self.settings.dev else []
        except UserError:
            remove_output(self.out)
            raise
        return Sorted(len(runs), 0, dict(counts), pairs, bad)

    def merged(self, done: Sorted) -> Sorted:
        """Merge runs into fewer, until they can be merged at once."""
        while done.runs > merge.FAN_IN:
            runs, groups = done.paths(self.work), merge.groups(done.runs)
            tasks = [
                merge.MergeTask(runs[first:last], _run(self.work, done.passes + 1, number))
                for number, (first, last) in enumerate(groups)
            ]
            advance = self.bar.stage("merging", len(tasks), "runs")
            _collect(self.run_tasks(merge.merge_runs, tasks), advance)
            done = self.save(replace(done, runs=len(tasks), passes=done.passes + 1))
        return done

    def save(self, done: Sorted) -> Sorted:
        atomic.write_file(self.work / SORTED, as_json(asdict(done)))
        return done

    def count_ranges(self, runs: list[Path], held: frozenset[merge.Hash]) -> list[merge.RangeCount]:
        sentences = sum(size_of(run).rows for run in runs)
        tasks = [merge.CountTask(runs, first, last, held) for first, last in merge.ranges(sentences)]
        advance = self.bar.stage("counting", len(tasks), "ranges")
        return _collect(self.run_tasks(merge.count_range, tasks), advance)

    def write_shards(
        self, runs: list[Path], counted: list[merge.RangeCount], held: frozenset[merge.Hash]
    ) -> list[ShardEntry]:
        """Write all shards, and the file of their blocks where there are many; returns their entries of the index, in
        order."""
        size, tasks, entries, blocks = self.settings.shard_sentences, [], [], 0
        for number, (first, last, skip, count) in enumerate(merge.plan_shards(counted, size)):
            name = f"shard-{number:06d}.tar"
            entry = self.work / f"{name}.json"
            block = number * size // BLOCK_SENTENCES
            blocks += -(-count // BLOCK_SENTENCES)
            entries.append(entry)
            if not entry.exists():
                shard = self.out / name
                kind = "txt.zst" if self.settings.zst else "txt"
                tasks.append(merge.ShardTask(runs, first, last, skip, count, held, shard, entry, block, kind))
        advance = self.bar.stage("writing", len(tasks), "shards")
        for _ in self.run_tasks(merge.write_shard, tasks):
            advance(1)
        written = (_of_work(entry, SHARD_ENTRY) for entry in entries)
        return write_apart(written, blocks, self.out, self.work)

    def finish(
        self, shards: list[ShardEntry], pairs: list[holdout.Pair], about: dict[str, object]
    ) -> CorpusIndex:
        if pairs:
            atomic.write_file(self.out / DEV, holdout.table(pairs), staging=self.work)
        if near := holdout.neighbours(pairs, self.settings.seed):
            atomic.write_file(self.out / NEIGHBOURS, holdout.table(near), staging=self.work)
        index = sealed(
            CorpusIndex(
                format=LISTED,
                fingerprint=fingerprint(shard.sha256 for shard in shards),
                sentences=sum(shard.sentences for shard in shards),
                dev=len(pairs),
                preparation=self.plan.as_dict() | about,
                shards=shards,
            )
        )
        sizes = {shard.name: number_of(shard) for shard in shards}
        atomic.write_file(self.out / SIZES, as_json(sizes), staging=self.work)
        atomic.write_file(self.out / INDEX, as_json(asdict(index)), staging=self.work)
        remove_work(self.out)
        return index


def _of_work(path: Path, adapter: TypeAdapter[Result]) -> Result:
    """What a stage before has written. UserError: somebody has changed it."""
    try:
        return adapter.validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(
            f"{path} is damaged. Delete {path.parent}, and write the same command again: it starts over."
        ) from error


def _run(work: Path, passes: int, number: int) -> Path:
    """The name of a run after some passes of merging."""
    return work / (f"run-{passes}-{number:06d}" if passes else f"run-{number:06d}")


def _collect(results: Iterator[Result], advance: Callable[[int], None]) -> list[Result]:
    """All results; advance(1) is called for each."""
    collected = []
    for result in results:
        collected.append(result)
        advance(1)
    return collected


def _nothing_left(counts: Counter[str], bad: list[str]) -> str:
    dropped = {why: number for why, number in sorted(counts.items()) if why != "read"}
    reasons = ", ".join(f"{number} {why}" for why, number in dropped.items()) or "the inputs have none"
    first = f" The first: {bad[0]}." if bad else ""
    remedy = ADVICE.get(most_dropped(dropped), "Give other inputs, or change the bounds.")
    return f"no sentence is left of {counts['read']} read: {reasons}.{first} {remedy}"
