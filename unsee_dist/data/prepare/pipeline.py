"""Prepare: text to shards, once. The same inputs and settings give the same bytes, on any number of processes.

    splits of the inputs ─► sort: clean, hash ─► runs, sorted by hash ─► merge: count, plan, write ─► shards, index

Sorting by a keyed 128-bit hash removes duplicates and shuffles at once, needs no random generator, and does not depend
on the order of the inputs. Memory is that of a split and a shard a process. The disk needs space for the shards and, until
they are written, for the runs: 60% of English text (sentences of 131 bytes: 48% their text, 12% numbers), and a sixteenth
of that more a process while runs are merged in passes.

`index.json` is written last: a folder with it is complete. Until then `preparing/` has the unfinished work (stages.py): a
killed preparation continues.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from unsee_dist.config.prepare import PrepareSettings
from unsee_dist.data.corpus.index import INDEX
from unsee_dist.data.prepare import formats, sources, spool
from unsee_dist.data.prepare.left_out import LeftOut
from unsee_dist.data.prepare.plan import (
    make_plan,
    open_work_folder,
    owned_output,
    read_finished,
    remove_output,
)
from unsee_dist.data.prepare.report import PreparationReport, progress, report_of
from unsee_dist.data.prepare.stages import Preparation
from unsee_dist.data.processes import LOCAL, worker_pool
from unsee_dist.errors import ROOM, UserError, refusals

__all__ = ["PrepareSettings", "prepare"]

MAX_SPLITS = 250  # of a large corpus, about: fewer than are merged at once
# smallest and largest split; a process needs some six times as much memory
SPLIT_BYTES = 16 * 2**20, 64 * 2**20


def prepare(
    inputs: Sequence[str],
    out: str | Path,
    settings: PrepareSettings,
    console: Console | None = None,
    processes: int | None = None,
    engine: str = LOCAL,
) -> PreparationReport:
    """Write the corpus of these inputs (see sources.py) into the folder out.

    A folder that already has this corpus is not changed, and reported; an interrupted preparation of the same inputs is
    continued. console: shows progress when it is a terminal. processes, engine: where the tasks run (processes.py); no
    byte depends on them. Of a Ray cluster, every machine must see the folder. Raises UserError for inputs that cannot
    be read, for a folder with other files or one that another command prepares, when no sentence is left, and when the
    disk is full.
    """
    with owned_output(Path(out)):
        return _prepare(inputs, Path(out), settings, console, processes, engine)


def _prepare(
    inputs: Sequence[str],
    out: Path,
    settings: PrepareSettings,
    console: Console | None,
    processes: int | None,
    engine: str,
) -> PreparationReport:
    started = time.monotonic()
    if not inputs:
        raise UserError(f"no input was given. Give text files, or write {sources.INSTALLED_DOCS}.")
    left_out = LeftOut()
    names = sources.resolve(inputs, settings.field, left_out.add)
    _check_field(names, settings.field)
    given = list(names)
    with refusals(lambda error: f"{out} cannot be written ({error.strerror}). {_remedy(error)}"):
        plan = make_plan(names, out, settings)
        if (out / INDEX).exists():
            return report_of(out, read_finished(out, plan), None)
        work = open_work_folder(out, plan)
        try:
            with worker_pool(processes, engine) as run_tasks, progress(console) as bar:
                splits = _split_bytes(sum(source.bytes for source in plan.inputs))
                preparation = Preparation(out.absolute(), work.absolute(), plan, run_tasks, bar)
                index = preparation.write(names, splits, left_out)
        except ChildProcessError as error:
            raise UserError(str(error)) from error
        except UserError as error:
            if not any(work.glob("run-*")):  # the first input was wrong: remove the empty work folder
                remove_output(out)
            raise UserError(spool.in_given_words(str(error), names, given)) from error
    return report_of(out, index, time.monotonic() - started)


def _check_field(names: Sequence[str], field: str) -> None:
    """UserError when a field is chosen, and no input has fields."""
    if field != PrepareSettings().field and all(formats.by_name(name) == formats.TEXT for name in names):
        raise UserError(
            f"--field = {field} is for .jsonl, .csv, .tsv, .parquet and .tar, and text has no fields. Leave it out."
        )


def _split_bytes(total: int) -> int:
    """The size of a split, by that of all inputs."""
    return min(max(SPLIT_BYTES[0], total // MAX_SPLITS), SPLIT_BYTES[1])


def _remedy(error: OSError) -> str:
    if error.errno in ROOM:
        return "Make room and write the same command again: it continues. Or write to another folder."
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "Allow more open files (`ulimit -n 1024`) and write the same command again: it continues."
    return "Correct that and write the same command again: it continues. Or write to another folder."
