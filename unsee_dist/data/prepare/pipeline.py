"""Prepare: text to shards, once. The same inputs and settings give the same bytes, on any number of processes.

    pieces of the inputs ─► scatter: clean, hash ─► runs, sorted by hash ─► gather: count, place, fetch ─► shards, index

Sorting by a keyed 128-bit hash is dedup and shuffle at once, needs no random generator, and does not depend on the
order of the inputs. Memory is that of a piece and a shard a process; the disk needs the text twice while it works.

`index.json` is written last: a folder with it is complete. Until then `preparing/` marks the folder as ours, and
holds what is done: a run or a shard has its name when it is whole, so a killed preparation goes on where it was.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from unsee_dist.data.corpus import shard_writer
from unsee_dist.data.corpus.index import FORMAT, INDEX, fingerprint
from unsee_dist.data.prepare import holdout, merge, sources
from unsee_dist.data.prepare.plan import abandon, as_json, check_ours, claim, finished, plan_of
from unsee_dist.data.prepare.report import Bar, Report, progress, report_of
from unsee_dist.data.prepare.settings import PrepareSettings
from unsee_dist.data.prepare.sort import SortTask, facts_of, sort_split
from unsee_dist.data.processes import Work, here, side_by_side
from unsee_dist.errors import UserError, file_error
from unsee_dist.files import atomic

__all__ = ["PrepareSettings", "prepare"]

DEV = "dev.tsv"
NEIGHBOURS = "dev-neighbours.tsv"
SIZES = "sizes.json"
PIECES = 512  # of a large corpus: every run is opened for every shard
PIECE_BYTES = 16 * 2**20, 64 * 2**20  # a process needs some six times as much


def prepare(
    inputs: Sequence[str],
    out: str | Path,
    settings: PrepareSettings,
    console: Console | None = None,
    processes: int | None = None,
    engine: str = "local",
) -> Report:
    """Write the corpus of these inputs (see sources.py) into the folder out.

    A folder that already holds it is left as it is, and reported; one that an interrupted preparation of the same
    inputs left is completed. console: shows progress when it is a terminal. processes, engine: of the work
    (processes.py); no byte depends on them. Only the folder must be seen by the machines of a Ray cluster.
    Raises ValueError, one sentence, for inputs that cannot be read, for a folder that holds something else, when
    nothing is left to train on, and when the disk is full.
    """
    out, started = Path(out), time.monotonic()
    if not inputs:
        raise UserError(f"no input was given. Name text files, or write {sources.INSTALLED_DOCS}.")
    names = sources.resolve(inputs)
    check_ours(out)
    try:
        plan = plan_of(names, out, settings)
        if (out / INDEX).exists():
            return report_of(out, finished(out, plan), None)
        work = claim(out, plan)
        try:
            with side_by_side(processes, engine) as run, progress(console) as bar:
                index = _Preparation(names, out.absolute(), work.absolute(), plan, settings, run).write(bar)
        except UserError:
            if not any(work.glob("run-*")):  # a wrong input from the start leaves nothing behind
                abandon(out)
            raise
    except ChildProcessError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        if error.strerror is None:
            raise
        raise file_error(
            f"{out} cannot be written ({error.strerror}). Make room and run it again: it continues; "
            "or choose another --out.",
            error,
        ) from error
    return report_of(out, index, time.monotonic() - started)


class _Preparation:
    """A preparation under way in its folder."""

    def __init__(
        self,
        names: list[str],
        out: Path,
        work: Path,
        plan: dict[str, Any],
        settings: PrepareSettings,
        run: Work,
    ) -> None:
        self.names, self.out, self.work, self.plan = names, out, work, plan
        self.settings, self.run = settings, run

    def write(self, bar: Bar) -> dict[str, Any]:
        """All stages; each finds what is done. Returns the index."""
        runs = self.sort(bar)
        if len(runs) == 1:
            self.run = here  # the rest is done before a process has started
        facts = [facts_of(run) for run in runs]
        counts = sum((Counter(fact["counts"]) for fact in facts), Counter[str]())
        pairs = self.held_out(facts)
        told = (sentence for pair in pairs for sentence in pair.sentences)
        held = frozenset(merge.hashed(sentence, self.settings.seed) for sentence in told)
        counted = self.count(runs, sum(fact["sentences"] for fact in facts), held, bar)
        for part in counted:
            counts.update(part.dropped)
        if not sum(part.kept for part in counted):
            abandon(self.out)
            raise UserError(f"no sentence is left of {counts['read']} read: {_reasons(counts)}.")
        shards = self.fetch(runs, counted, held, bar)
        return self.finish(shards, pairs, counts)

    def sort(self, bar: Bar) -> list[Path]:
        """A run of every piece of the inputs."""
        given = sum(source["bytes"] for source in self.plan["inputs"])
        advance = bar.stage("reading", given, "bytes")
        runs: list[Path] = []

        def tasks() -> Iterator[SortTask]:
            size = min(max(PIECE_BYTES[0], given // PIECES), PIECE_BYTES[1])
            for piece in sources.input_splits(self.names, self.settings.field, size, advance):
                runs.append(self.work / f"run-{len(runs):06d}")
                if not runs[-1].exists():
                    yield SortTask(piece, runs[-1], self.settings)

        for _ in self.run(sort_split, tasks()):
            pass
        if lost := next((run for run in runs if not run.exists()), None):
            raise UserError(
                f"{lost} was written on another machine and is not seen here. "
                "Choose an --out on a file system that all machines of the Ray cluster share."
            )
        return runs

    def held_out(self, facts: list[dict[str, Any]]) -> list[holdout.Pair]:
        if not self.settings.dev:
            return []
        try:
            return holdout.hold_out((holdout.from_json(fact["pairs"]) for fact in facts), self.settings.dev)
        except UserError:
            abandon(self.out)
            raise

    def count(
        self, runs: list[Path], records: int, held: frozenset[merge.Hash], bar: Bar
    ) -> list[merge.Counted]:
        tasks = [merge.Counting(runs, first, last, held) for first, last in merge.ranges(records)]
        advance = bar.stage("counting", len(tasks), "ranges")
        return _told(self.run(merge.count, tasks), advance)

    def fetch(
        self,
        runs: list[Path],
        counted: list[merge.Counted],
        held: frozenset[merge.Hash],
        bar: Bar,
    ) -> list[dict[str, Any]]:
        """All shards; their entries of the index, in order."""
        size, tasks, entries = self.settings.shard_sentences, [], []
        for number, (first, last, skip, take) in enumerate(merge.place(counted, size)):
            name = f"shard-{number:06d}.tar"
            entry = self.work / f"{name}.json"
            block = number * size // shard_writer.BLOCK_SENTENCES
            entries.append(entry)
            if not entry.exists():
                shard = self.out / name
                kind = "txt.zst" if self.settings.zst else "txt"
                tasks.append(merge.Fetching(runs, first, last, skip, take, held, shard, entry, block, kind))
        advance = bar.stage("writing", len(tasks), "shards")
        _told(self.run(merge.fetch, tasks), advance)
        return [json.loads(entry.read_bytes()) for entry in entries]

    def finish(
        self, shards: list[dict[str, Any]], pairs: list[holdout.Pair], counts: Counter[str]
    ) -> dict[str, Any]:
        if pairs:
            atomic.write_file(self.out / DEV, holdout.table(pairs), staging=self.work)
        if near := holdout.neighbours(pairs, self.settings.seed):
            atomic.write_file(self.out / NEIGHBOURS, holdout.table(near), staging=self.work)
        index = {
            "format": FORMAT,
            "fingerprint": fingerprint(entry["sha256"] for entry in shards),
            "sentences": sum(entry["sentences"] for entry in shards),
            "dev": len(pairs),
            "preparation": self.plan | {"counters": dict(sorted(counts.items()))},
            "shards": shards,
        }
        sizes = {entry["name"]: len(entry["blocks"]["offset"]) for entry in shards}
        atomic.write_file(self.out / SIZES, as_json(sizes), staging=self.work)
        atomic.write_file(self.out / INDEX, as_json(index), staging=self.work)
        shutil.rmtree(self.work)
        return index


def _told(results: Iterator[Any], advance: Callable[[int], None]) -> list[Any]:
    """All results; advance is told of each."""
    found = []
    for result in results:
        found.append(result)
        advance(1)
    return found


def _reasons(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {why}" for why, n in sorted(counts.items()) if why != "read") or "nothing was read"
