"""The status of a sweep, and stopping it: by its folder alone, from any machine that can read it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from unsee_dist.errors import UserError, writing
from unsee_dist.files.remote import check_here
from unsee_dist.sweep import ledger
from unsee_dist.sweep.driver import SWEEP, driver_of
from unsee_dist.sweep.load import load_sweep
from unsee_dist.sweep.report import CONFIRM, table

PATIENCE_S = 120.0  # for the driver to see the request and save its state


def sweep_file(folder: Path) -> str:
    """The sweep a folder holds. UserError: none."""
    check_here(folder, "", "give the sweep's folder.")
    path = folder / SWEEP
    if not path.is_file():
        raise UserError(
            f"{folder} holds no sweep: there is no {SWEEP} in it. Start one: unsee sweep SWEEP.yaml"
        )
    return str(path)


def show(folder: Path, as_json: bool = False) -> None:
    """Print a row a trial, best first, and who drives the sweep."""
    sweep = load_sweep(sweep_file(folder))
    rows = ledger.read(folder)
    if as_json:
        driver = driver_of(folder)
        state = {"trials": sweep.trials, "driver": str(driver) if driver else None}
        ranked = ledger.ranked(rows, sweep.settings.mode)
        print(json.dumps(state | {"rows": [asdict(row) for row in ranked]}, default=str))
        return
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(table(sweep, ledger.ranked(rows, sweep.settings.mode)))
    driver = driver_of(folder)
    who = f"driven by {driver}" if driver else "no process drives it"
    ended = sum(row.ended for row in rows)
    console.print(f"{ended} of {sweep.trials} trials ended; {who}", soft_wrap=True)


def stop(folder: Path) -> None:
    """Ask the driver to stop, and wait until it has. UserError: no process drives it, or it does not answer."""
    sweep_file(folder)
    if driver_of(folder) is None:
        raise UserError(f"{folder} is not running: nothing to stop.")
    for searched in (folder, folder / CONFIRM):  # a confirmation looks in its own folder
        if searched.is_dir():
            with writing(searched / ledger.STOP, "Make room, or send the process SIGTERM."):
                (searched / ledger.STOP).touch()
    until = time.monotonic() + PATIENCE_S
    while (driver := driver_of(folder)) is not None:
        if time.monotonic() > until:
            raise UserError(
                f"process {driver.pid} on {driver.host}, which drives {folder}, has not answered for {PATIENCE_S:g} s. "
                f"Was it killed? Then continue with unsee sweep --resume {folder}."
            )
        time.sleep(0.5)
