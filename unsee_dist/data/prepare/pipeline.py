"""Prepare: text to shards, once. The same inputs and settings give the same bytes, on any number of processes.

    splits of the inputs ─► sort: clean, hash ─► runs, sorted by hash ─► merge: count, plan, write ─► shards, index

Sorting by a keyed 128-bit hash removes duplicates and shuffles at once, needs no random generator, and does not depend
on the order of the inputs. Memory is that of a split and a shard a process; the disk needs space for the text twice.

`index.json` is written last: a folder with it is complete. Until then `preparing/` has the unfinished work: a run or a
shard gets its name when it is complete, so a killed preparation continues.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from unsee_dist.config.prepare import BLOCK_SENTENCES, PrepareSettings
from unsee_dist.data.corpus.index import (
    FORMAT,
    INDEX,
    SHARD_ENTRY,
    CorpusIndex,
    ShardEntry,
    fingerprint,
    sealed,
)
from unsee_dist.data.prepare import holdout, merge, sources
from unsee_dist.data.prepare.plan import (
    Plan,
    as_json,
    check_output,
    make_plan,
    open_work_folder,
    owned_output,
    read_finished,
    remove_output,
)
from unsee_dist.data.prepare.report import Bar, Report, progress, report_of
from unsee_dist.data.prepare.sort import RunFacts, SortTask, facts_of, sort_split
from unsee_dist.data.processes import TaskRunner, run_serially, worker_pool
from unsee_dist.errors import UserError, file_error
from unsee_dist.files import atomic

__all__ = ["PrepareSettings", "prepare"]

Result = TypeVar("Result")
DEV = "dev.tsv"
NEIGHBOURS = "dev-neighbours.tsv"
SIZES = "sizes.json"
MAX_SPLITS = 512  # of a large corpus, about: every run is opened for every shard
# smallest and largest split; a process needs some six times as much memory
SPLIT_BYTES = 16 * 2**20, 64 * 2**20


def prepare(
    inputs: Sequence[str],
    out: str | Path,
    settings: PrepareSettings,
    console: Console | None = None,
    processes: int | None = None,
    engine: str = "local",
) -> Report:
    """Write the corpus of these inputs (see sources.py) into the folder out.

    A folder that already has this corpus is not changed, and reported; an interrupted preparation of the same inputs is
    continued. console: shows progress when it is a terminal. processes, engine: where the tasks run (processes.py); no
    byte depends on them. Of a Ray cluster, every machine must see the folder. Raises ValueError for inputs that cannot
    be read, for a folder with other files or one that another command prepares, when no sentence is left, and when the
    disk is full.
    """
    with owned_output(Path(out)):
        return _prepare(inputs, out, settings, console, processes, engine)


def _prepare(
    inputs: Sequence[str],
    out: str | Path,
    settings: PrepareSettings,
    console: Console | None,
    processes: int | None,
    engine: str,
) -> Report:
    out, started = Path(out), time.monotonic()
    if not inputs:
        raise UserError(f"no input was given. Give text files, or write {sources.INSTALLED_DOCS}.")
    names = sources.resolve(inputs)
    check_output(out)
    try:
        plan = make_plan(names, out, settings)
        if (out / INDEX).exists():
            return report_of(out, read_finished(out, plan), None)
        work = open_work_folder(out, plan)
        try:
            with worker_pool(processes, engine) as run_tasks, progress(console) as bar:
                preparation = _Preparation(names, out.absolute(), work.absolute(), plan, settings, run_tasks)
                index = preparation.write(bar)
        except UserError:
            if not any(work.glob("run-*")):  # the first input was wrong: remove the empty work folder
                remove_output(out)
            raise
    except ChildProcessError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        if error.strerror is None:
            raise
        raise file_error(
            f"{out} cannot be written ({error.strerror}). Make room and write the same command again: it continues. "
            "Or choose another --out.",
            error,
        ) from error
    return report_of(out, index, time.monotonic() - started)


class _Preparation:
    """A running preparation."""

    def __init__(
        self,
        names: list[str],
        out: Path,
        work: Path,
        plan: Plan,
        settings: PrepareSettings,
        run_tasks: TaskRunner,
    ) -> None:
        self.names, self.out, self.work, self.plan = names, out, work, plan
        self.settings, self.run_tasks = settings, run_tasks

    def write(self, bar: Bar) -> CorpusIndex:
        """Run all stages; each skips what is already done. Returns the index."""
        runs = self.sort(bar)
        if len(runs) == 1:
            self.run_tasks = run_serially  # it is faster than starting a process
        facts = [facts_of(run) for run in runs]
        counts = sum((Counter(fact.counts) for fact in facts), Counter[str]())
        pairs = self.held_out(facts)
        held_out = (sentence for pair in pairs for sentence in pair.sentences)
        held = frozenset(merge.hash_of(sentence, self.settings.seed) for sentence in held_out)
        counted = self.count_ranges(runs, sum(fact.sentences for fact in facts), held, bar)
        for each in counted:
            counts.update(each.dropped)
        if not sum(each.kept for each in counted):
            remove_output(self.out)
            raise UserError(
                f"no sentence is left of {counts['read']} read: {_reasons(counts)}. Give other inputs, or change the bounds."
            )
        shards = self.write_shards(runs, counted, held, bar)
        return self.finish(shards, pairs, counts)

    def sort(self, bar: Bar) -> list[Path]:
        """Write a run of every split of the inputs."""
        total = sum(source.bytes for source in self.plan.inputs)
        advance = bar.stage("reading", total, "bytes")
        runs: list[Path] = []

        def tasks() -> Iterator[SortTask]:
            size = min(max(SPLIT_BYTES[0], total // MAX_SPLITS), SPLIT_BYTES[1])
            for split in sources.input_splits(self.names, self.settings.field, size, advance):
                runs.append(self.work / f"run-{len(runs):06d}")
                if not runs[-1].exists():
                    yield SortTask(split, runs[-1], self.settings)

        for _ in self.run_tasks(sort_split, tasks()):
            pass
        if missing := next((run for run in runs if not run.exists()), None):
            raise UserError(
                f"{missing} was written on another machine and does not exist here. "
                "Choose an --out on a file system that all machines of the Ray cluster share."
            )
        return runs

    def held_out(self, facts: list[RunFacts]) -> list[holdout.Pair]:
        if not self.settings.dev:
            return []
        try:
            return holdout.hold_out((fact.pairs for fact in facts), self.settings.dev)
        except UserError:
            remove_output(self.out)
            raise

    def count_ranges(
        self, runs: list[Path], sentences: int, held: frozenset[merge.Hash], bar: Bar
    ) -> list[merge.RangeCount]:
        tasks = [merge.CountTask(runs, first, last, held) for first, last in merge.ranges(sentences)]
        advance = bar.stage("counting", len(tasks), "ranges")
        return _collect(self.run_tasks(merge.count_range, tasks), advance)

    def write_shards(
        self,
        runs: list[Path],
        counted: list[merge.RangeCount],
        held: frozenset[merge.Hash],
        bar: Bar,
    ) -> list[ShardEntry]:
        """Write all shards; returns their entries of the index, in order."""
        size, tasks, entries = self.settings.shard_sentences, [], []
        for number, (first, last, skip, count) in enumerate(merge.plan_shards(counted, size)):
            name = f"shard-{number:06d}.tar"
            entry = self.work / f"{name}.json"
            block = number * size // BLOCK_SENTENCES
            entries.append(entry)
            if not entry.exists():
                shard = self.out / name
                kind = "txt.zst" if self.settings.zst else "txt"
                tasks.append(merge.ShardTask(runs, first, last, skip, count, held, shard, entry, block, kind))
        advance = bar.stage("writing", len(tasks), "shards")
        _collect(self.run_tasks(merge.write_shard, tasks), advance)
        return [SHARD_ENTRY.validate_json(entry.read_bytes()) for entry in entries]

    def finish(
        self, shards: list[ShardEntry], pairs: list[holdout.Pair], counts: Counter[str]
    ) -> CorpusIndex:
        if pairs:
            atomic.write_file(self.out / DEV, holdout.table(pairs), staging=self.work)
        if near := holdout.neighbours(pairs, self.settings.seed):
            atomic.write_file(self.out / NEIGHBOURS, holdout.table(near), staging=self.work)
        index = sealed(
            CorpusIndex(
                format=FORMAT,
                fingerprint=fingerprint(shard.sha256 for shard in shards),
                sentences=sum(shard.sentences for shard in shards),
                dev=len(pairs),
                preparation=self.plan.as_dict() | {"counters": dict(sorted(counts.items()))},
                shards=shards,
            )
        )
        sizes = {shard.name: len(shard.blocks.offset) for shard in shards}
        atomic.write_file(self.out / SIZES, as_json(sizes), staging=self.work)
        atomic.write_file(self.out / INDEX, as_json(asdict(index)), staging=self.work)
        shutil.rmtree(self.work)
        return index


def _collect(results: Iterator[Result], advance: Callable[[int], None]) -> list[Result]:
    """All results; advance(1) is called for each."""
    collected = []
    for result in results:
        collected.append(result)
        advance(1)
    return collected


def _reasons(counts: Counter[str]) -> str:
    return (
        ", ".join(f"{n} {why}" for why, n in sorted(counts.items()) if why != "read")
        or "the inputs have none"
    )
