"""`unsee runs`: the runs below a folder, what state each is in, how far and how good it is, and where it ran."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from unsee_dist.errors import UserError
from unsee_dist.evaluation.scores import EVALUATION
from unsee_dist.files.remote import check_here
from unsee_dist.masking import published
from unsee_dist.metrics.names import DEV, GAIN, STEP, best_metric, dev
from unsee_dist.metrics.verdict import DIGITS, collapse
from unsee_dist.report.run_files import RunFiles, is_run, open_run
from unsee_dist.tracking.note import EXPORTS
from unsee_dist.tracking.recorder import TRACE
from unsee_dist.training.checkpoint.directory import CHECKPOINTS

DEPTH = 4  # folders below the one that is given: sweeps/NAME/trials/ID
INSIDE = (CHECKPOINTS, *EXPORTS, TRACE, EVALUATION)  # of a run: nothing to look for in them


def show(folder: Path, as_json: bool) -> None:
    """Print a line a run, the newest first. UserError: the folder is not there."""
    check_here(folder, "DIR = ", "give the folder that your runs are in.")
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder. Give the one that your runs are in: unsee runs DIR.")
    rows = [summary(open_run(path), folder) for path in find_runs(folder)]
    rows.sort(key=lambda row: str(row["changed"] or ""), reverse=True)
    if as_json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    console = Console(markup=False, emoji=False, highlight=False)
    if not rows:
        console.print(f"{folder} has no run. unsee train CONFIG starts one.", soft_wrap=True)
        return
    console.print(_table(rows))
    for row in rows:
        for problem in row["problems"]:
            console.print(f"{row['run']}: {problem}", soft_wrap=True)


def find_runs(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """The folder itself, or the runs below it, in the order of their names. Hidden folders are left out."""
    if is_run(folder):
        yield folder
    if depth == 0:
        return
    try:
        below = sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir())
    except OSError:  # of another user
        return
    left_out = INSIDE if is_run(folder) else ()
    for path in below:
        if not path.name.startswith(".") and path.name not in left_out:
            yield from find_runs(path, depth - 1)


def summary(run: RunFiles, below: Path) -> dict[str, Any]:
    """A run as --json shows it. below: the folder its name is relative to."""
    best, before = best_metric(run.best), best_metric(run.before)
    start = run.starts[-1] if run.starts else None
    return {
        "run": run.folder.name if run.folder == below else str(run.folder.relative_to(below)),
        "name": run.name,
        "folder": published(str(run.folder.absolute())),
        "state": run.state,
        "step": run.step,
        "steps": run.steps,
        "metric": best[0] if best else None,
        "before": before[1] if before else None,
        "best": best[1] if best else None,
        "best_step": int(run.best[STEP]) if best else None,
        "gain": run.best.get(dev(GAIN)),
        "collapsed": collapse(run.last),
        "ranks": start.ranks if start else None,
        "host": (run.owner.host if run.owner else None) or (start and start.environment.get("host")),
        "process": published(str(run.owner)) if run.owner and run.state in ("running", "silent") else None,
        "began": _iso(run.starts[0].time) if run.starts else None,
        "changed": _iso(run.changed_at),
        "problems": [published(problem) for problem in run.problems],
    }


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(Column("run", overflow="fold"), "state", box=None, pad_edge=False)
    for name in ("step", "best", "gain", "when"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("where", overflow="fold")
    for row in rows:
        digits = DIGITS.get(row["metric"], 3)
        table.add_row(
            row["run"],
            "collapsed" if row["collapsed"] else row["state"],
            f"{row['step']}/{row['steps'] or '?'}",
            "–"
            if row["best"] is None
            else f"{_name(row['metric'])} {row['best']:.{digits}f} @ {row['best_step']}",
            "–" if row["gain"] is None else f"{row['gain']:+.{digits}f}",
            _when(row["changed"]),
            row["host"] or "–",
        )
    return table


def _name(metric: str) -> str:
    return metric.removeprefix(DEV)


def _when(changed: str | None) -> str:
    """Without the year where it is this one."""
    if changed is None:
        return "–"
    day, clock = changed[:10], changed[11:16]
    return f"{day[5:] if day[:4] == str(datetime.now().year) else day} {clock}"


def _iso(seconds: float | None) -> str | None:
    """With the offset of this machine's time zone."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds") if seconds else None
