"""The folder of a sweep: which sweep it holds, and which process drives it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unsee_dist.config import bounded_yaml
from unsee_dist.errors import UserError, writing
from unsee_dist.files.atomic import write_file
from unsee_dist.files.owner import Owner, owned, owner_of
from unsee_dist.files.trees import read_within
from unsee_dist.supervision.stop_mark import OF_SWEEP, write_mark
from unsee_dist.sweep.settings import Sweep
from unsee_dist.sweep.trial import TRIALS
from unsee_dist.training.checkpoint.directory import CHECKPOINTS

SWEEP, DRIVER = "sweep.yaml", "driver.json"


def make_folder(sweep: Sweep) -> None:
    """Make the sweep's folder, or check that it holds this sweep. UserError names what differs."""
    path, text = sweep.folder / SWEEP, sweep.as_yaml()
    if os.path.exists(path):
        existing = read_within(path, bounded_yaml.BYTES, "Write another sweep.dir.").decode(errors="replace")
        if existing != text:
            pairs = itertools.zip_longest(existing.splitlines(), text.splitlines(), fillvalue="nothing")
            old, new = next(
                ((old.strip(), new.strip()) for old, new in pairs if old != new), ("other line ends", "none")
            )
            raise UserError(
                f"{sweep.folder} holds another sweep: {old} there, {new} here. Write another sweep.dir, or continue "
                f"that one with unsee sweep --resume {sweep.folder}."
            )
        return
    remedy = "Make room and write the same command again, or write another sweep.dir."
    with writing(f"sweep.dir = {sweep.folder}", remedy):
        if os.path.exists(sweep.folder) and any(sweep.folder.iterdir()):
            raise UserError(
                f"sweep.dir = {sweep.folder} is not empty and not a sweep's folder. Write another sweep.dir."
            )
        sweep.folder.mkdir(parents=True, exist_ok=True)
        write_file(path, text)


@contextmanager
def registered_driver(folder: Path) -> Iterator[None]:
    """This process drives the sweep in `folder`. UserError: another one does."""
    with owned(folder / DRIVER, f"sweep.dir = {folder}", f"Stop it: unsee sweep --stop {folder}"):
        yield


def driver_of(folder: Path) -> Owner | None:
    """The process that drives the sweep; None when nobody does, or when it is seen to have been killed."""
    owner = owner_of(folder / DRIVER)
    return None if owner is None or owner.ended else owner


def write_progress(folder: Path, ended: int) -> None:
    """Write for the batch system's script that a signal has stopped the sweep, and its progress: it may start it again.

    The trials that have ended, and the steps in all newest checkpoints: two equal marks are no progress.
    """

    def progress() -> str:
        runs = (folder / TRIALS).glob("*")
        steps = sum(max(map(_step, (run / CHECKPOINTS).glob("step-*")), default=0) for run in runs)
        return f"{ended} trials ended, {steps} steps saved"

    write_mark(OF_SWEEP, progress)


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.removeprefix("step-")
    return int(number) if number.isdecimal() else 0  # a copy that somebody made
