"""Whose folder it is, and who drives it."""

from __future__ import annotations

import itertools
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unsee_dist.errors import UserError
from unsee_dist.sweep.settings import Sweep
from unsee_dist.sweep.trial import TRIALS

SWEEP, DRIVER = "sweep.yaml", "driver.json"
MARK = "UNSEE_SWEEP_MARK"  # a file, named by the batch system's script


def claim(sweep: Sweep) -> None:
    """Make the sweep's folder, or see that it is this sweep's. ValueError names what differs."""
    path, text = sweep.folder / SWEEP, sweep.as_yaml()
    if path.exists():
        there = path.read_text(encoding="utf-8")
        if there != text:
            pairs = itertools.zip_longest(there.splitlines(), text.splitlines(), fillvalue="nothing")
            old, new = next((old.strip(), new.strip()) for old, new in pairs if old != new)
            raise UserError(
                f"{sweep.folder} holds another sweep: {old} there, {new} here. Write another sweep.dir, or continue "
                f"that one with unsee sweep --resume {sweep.folder}."
            )
        return
    if sweep.folder.exists() and any(sweep.folder.iterdir()):
        raise UserError(f"sweep.dir = {sweep.folder} is not empty and no sweep. Write another sweep.dir.")
    sweep.folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@contextmanager
def driving(folder: Path) -> Iterator[None]:
    """This process drives the sweep in `folder`. ValueError: another one of this host does."""
    path, host = folder / DRIVER, socket.gethostname()
    other = driver_of(folder)
    if other is not None and other["host"] == host and Path(f"/proc/{other['pid']}").exists():
        raise UserError(f"{folder} is driven by process {other['pid']}. Stop it: unsee sweep --stop {folder}")
    path.write_text(json.dumps({"host": host, "pid": os.getpid()}), encoding="utf-8")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def driver_of(folder: Path) -> dict[str, Any] | None:
    """Host and process that drive the sweep, or did when they were killed; None when it ended by itself."""
    path = folder / DRIVER
    return json.loads(path.read_bytes()) if path.exists() else None


def leave_mark(folder: Path, ended: int) -> None:
    """Tell the batch system's script that a signal has stopped the sweep, and how far it is: it may start it again.

    The trials that have ended, and the steps in all newest checkpoints: two equal marks are no progress.
    """
    path = os.environ.get(MARK)
    if path:
        runs = (folder / TRIALS).glob("*")
        steps = sum(max(map(_step, (run / "checkpoints").glob("step-*")), default=0) for run in runs)
        Path(path).write_text(f"{ended} trials ended, {steps} steps saved\n", encoding="utf-8")


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))
