"""The results of a sweep: a table, plots, and the best settings as a preset that `unsee train` takes.

report/report.html  trials.md  report.json  best.yaml  curves.png  parallel.png  importance.png  confirm.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from unsee_dist.config.sections import RunConfig, every_steps
from unsee_dist.errors import refusals, writing
from unsee_dist.files.atomic import write_file
from unsee_dist.log import LOG
from unsee_dist.sweep import ledger
from unsee_dist.sweep.ledger import LedgerRow
from unsee_dist.sweep.settings import Sweep
from unsee_dist.sweep.space import OF_A_TRIAL

REPORT, CONFIRM = "report", "confirm"
REMEDY = "Make room, and write the same command again: it continues."


def write_report(sweep: Sweep, rows: Sequence[LedgerRow]) -> Path:
    """Write the report of the trials so far, and print its table. Returns its folder. UserError: it cannot be written."""
    folder = sweep.folder / REPORT
    with refusals(lambda refused: f"{folder} cannot be written ({refused.strerror}). {REMEDY}"):
        return _write_report(sweep, rows)


def _write_report(sweep: Sweep, rows: Sequence[LedgerRow]) -> Path:
    from unsee_dist.report.page import NAME, write_page
    from unsee_dist.sweep import plots
    from unsee_dist.sweep.importance import importances
    from unsee_dist.sweep.page import page

    folder = sweep.folder / REPORT
    folder.mkdir(exist_ok=True)
    ordered = ledger.ranked(rows, sweep.settings.mode)
    top = ledger.best(rows, sweep.settings.mode)
    weights, left_out = importances(sweep, rows)
    _print(table(sweep, ordered))
    write_file(folder / "trials.md", markdown(sweep, ordered, weights, left_out))
    results = {
        "metric": sweep.settings.metric,
        "mode": sweep.settings.mode,
        "best": asdict(top) if top else None,
        "importance": weights,
        "trials": [asdict(row) for row in ordered],
    }
    write_file(folder / "report.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    if top is not None:
        write_file(folder / "best.yaml", preset(sweep, top))
        plots.curves(sweep, rows, rungs(sweep), folder / "curves.png")
        plots.parallel(sweep, rows, folder / "parallel.png")
        LOG.info(f"best: unsee train {folder / 'best.yaml'} run.dir=...")
    if weights:
        plots.importance(weights, sweep.settings.metric, folder / "importance.png")
    write_page(page(sweep, rows, weights), folder / NAME)
    LOG.info(f"report: {folder / NAME}")
    return folder


def write_confirmation(sweep: Sweep, rows: Sequence[LedgerRow]) -> None:
    """The best against the base, each trained to its end on the same seeds: mean ± deviation, and how they differ."""
    scores: dict[bool, dict[int, float]] = {True: {}, False: {}}
    for row in rows:
        if row.status == "complete" and row.score is not None:
            scores[len(row.point) > 1][int(row.point["seed"])] = row.score
    shared = sorted(scores[True].keys() & scores[False].keys())
    gains = [scores[True][seed] - scores[False][seed] for seed in shared]
    lines = [
        f"| {sweep.settings.metric}, best evaluation | seeds | mean ± std | each |",
        "|---|---:|---:|---|",
    ]
    for name, of in (("best of the sweep", scores[True]), ("base", scores[False])):
        each = ", ".join(f"{of[seed]:.2f}" for seed in sorted(of))
        lines.append(f"| {name} | {len(of)} | {_mean_and_deviation(list(of.values()))} | {each} |")
    lines.append(
        f"| difference, seed by seed | {len(gains)} | {_mean_and_deviation(gains)} | {', '.join(f'{g:+.2f}' for g in gains)} |"
    )
    text = "\n".join(lines) + "\n"
    folder = sweep.folder / REPORT
    with writing(folder, REMEDY):
        folder.mkdir(exist_ok=True)
        write_file(folder / "confirm.md", text)
    LOG.info(text)


def table(sweep: Sweep, ordered: Sequence[LedgerRow]) -> Table:
    shown = Table("trial", "status", sweep.settings.metric, "step", "of", *_keys(sweep), "run", box=None)
    for row in ordered:
        shown.add_row(*_cells(sweep, row))
    return shown


def markdown(
    sweep: Sweep, ordered: Sequence[LedgerRow], weights: dict[str, float], left_out: Sequence[str]
) -> str:
    """The table, best first, and which settings mattered."""
    head = ["trial", "status", sweep.settings.metric, "at step", "of", *_keys(sweep), "run"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(_cells(sweep, row))} |" for row in ordered]
    if weights:
        shares = ", ".join(f"{key} {weight:.0%}" for key, weight in weights.items())
        lines += ["", f"Share of the scores' variance that a setting explains (fANOVA): {shares}."]
    if left_out:
        lines += ["", f"Not every trial has {', '.join(left_out)}: left out there."]
    lines += ["", *(f"Trial {row.number}: {row.why}" for row in ordered if row.why)]
    return "\n".join(lines).rstrip() + "\n"


def preset(sweep: Sweep, row: LedgerRow) -> str:
    """The row's configuration as a preset: only what differs from the defaults."""
    config, base = sweep.config(dict(row.point)), RunConfig()
    ours, theirs = config.model_dump(mode="json"), base.model_dump(mode="json")
    same_objective = ours["objective"]["name"] == theirs["objective"]["name"]
    tree: dict[str, Any] = {"extends": "base.yaml"}
    for section, values in ours.items():
        if not isinstance(values, dict):
            if values != theirs[section] and section not in OF_A_TRIAL:
                tree[section] = values
            continue
        whole = section == "objective" and not same_objective
        differ = {
            key: value
            for key, value in values.items()
            if (whole or value != theirs[section].get(key)) and f"{section}.{key}" not in OF_A_TRIAL
        }
        if differ:
            tree[section] = differ
    header = f"# {sweep.settings.name}, trial {row.number}: {sweep.settings.metric} {row.score:.4g} at step {row.step}.\n"
    return header + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def rungs(sweep: Sweep) -> list[int]:
    """The steps at which ASHA lets one of `sweep.reduction` go on."""
    settings = sweep.settings
    if settings.scheduler != "asha":
        return []
    steps, rung = [], every_steps(settings.grace, sweep.steps)
    while rung < sweep.steps:
        steps.append(rung)
        rung *= settings.reduction
    return steps


def _keys(sweep: Sweep) -> list[str]:
    return [axis.key for axis in sweep.space.axes]


def _cells(sweep: Sweep, row: LedgerRow) -> list[str]:
    def cell(key: str) -> str:
        value = row.point.get(key, "–")
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    score = "–" if row.score is None else f"{row.score:.4g}"
    return [
        str(row.number),
        row.status,
        score,
        str(row.step or "–"),
        str(row.reached),
        *map(cell, _keys(sweep)),
        row.trial,  # of its folder, and the end of its name in MLflow
    ]


def _mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _print(shown: Table) -> None:
    Console(
        file=sys.stderr,
        highlight=False,
        markup=False,
        emoji=False,
        width=None if sys.stderr.isatty() else 160,
    ).print(shown)
