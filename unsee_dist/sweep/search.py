"""From a sweep to its answer: claim the folder, look at the cluster, let the trials run, tell what came of it.

<sweep.dir>/sweep.yaml      the whole sweep, resolved; the same command, or --resume, continues it
           /trials.json     a row a trial
           /trials/ID/      a run like any other
           /tune/           Ray Tune's state, and Ray Train's beside it
           /report/         table, plots, best.yaml
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml

from unsee_dist.config.sections import every_steps
from unsee_dist.errors import ExitCode, UserError
from unsee_dist.ray_pool.cluster import connected, missing, nodes, slots
from unsee_dist.sweep import ledger
from unsee_dist.sweep.driver import claim, driving, leave_mark
from unsee_dist.sweep.ledger import Goal, Row
from unsee_dist.sweep.report import CONFIRM, REPORT, write_confirmation, write_report
from unsee_dist.sweep.settings import Sweep
from unsee_dist.sweep.space import Point
from unsee_dist.sweep.trial import Place, ask_to_end, train_trial, trial_folder
from unsee_dist.sweep.tune import Calls, Group, Study, search
from unsee_dist.tracking.environment import describe
from unsee_dist.tracking.mlflow_parent import ParentRun

MLFLOW_SAYS = {  # of a trial that is over
    "complete": "FINISHED",
    "stopped": "FINISHED",
    "broken": "FAILED",
    "failed": "FAILED",
    "waiting": "KILLED",
    "running": "KILLED",
}
CARRIED = ("HF_", "UNSEE_", "TRANSFORMERS_", "TOKENIZERS_", "DS_")  # of the environment, to the workers


def run(sweep: Sweep, seeds: int = 0) -> int:
    """Run the sweep, or what is left of it; then the best and the base on so many seeds.

    Returns 0 when it is complete, 75 when it was stopped before.

    Raises ValueError: another sweep's folder, a cluster too small, no trial that came to a score.
    """
    claim(sweep)
    with driving(sweep.folder), connected():
        study, group = plan_of(sweep)
        _say(
            f"{sweep.settings.name}: {study.trials} trials of {study.steps} steps on {group.ranks} ranks, "
            f"{study.at_once} at a time, see {sweep.folder}"
        )
        points = sweep.space.grid()[: study.trials] if sweep.settings.search == "grid" else []
        with tracked(sweep) as environment:
            rows = let_run(sweep, study, group, points, environment)
            done = not unfinished(rows, study)
            write_report(sweep, rows)
            if done:
                _check_scores(sweep, rows)
            if done and seeds:
                done = confirm(sweep, study, group, seeds, environment)
    if not done:
        if not (sweep.folder / ledger.STOP).exists():  # by a signal, and not by --stop
            leave_mark(sweep.folder, sum(row.ended for row in rows))
        _say(f"stopped; the same command continues, or: unsee sweep --resume {sweep.folder}")
        return ExitCode.STOPPED
    return ExitCode.COMPLETE


def plan_of(sweep: Sweep) -> tuple[Study, Group]:
    """How to search on the connected cluster. ValueError: it cannot hold one trial."""
    settings = sweep.settings
    group = Group(settings.ranks, settings.cpus, settings.gpus, settings.retries)
    there = nodes()
    lack = missing(there, group.cpus, group.gpus, group.ranks)
    if lack:
        raise UserError(
            f"sweep.ranks = {group.ranks}: a trial {lack}. Write fewer ranks, less sweep.cpus or sweep.gpus, "
            "or add nodes to the cluster."
        )
    fit = slots(there, group.cpus, group.gpus) // group.ranks
    study = Study(
        folder=sweep.folder,
        metric=settings.metric,
        mode=settings.mode,
        trials=sweep.trials,
        at_once=min(fit, settings.at_once or fit, sweep.trials),
        search="random" if settings.search == "random" else "tpe",
        scheduler=settings.scheduler,
        steps=sweep.steps,
        grace=every_steps(settings.grace, sweep.steps),
        reduction=settings.reduction,
        hours=settings.hours,
        seed=settings.seed,
    )
    return study, group


def let_run(
    sweep: Sweep, study: Study, group: Group, points: list[Point], environment: Mapping[str, str]
) -> list[Row]:
    """Let the trials run until they have ended or somebody stops them; `points` where they are known before."""
    carried = {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
    place = Place(str(Path.cwd()), carried | dict(environment))
    (sweep.folder / ledger.STOP).unlink(missing_ok=True)
    goal = Goal(study.metric, study.mode, study.trials, study.steps)
    search(
        study,
        group,
        sweep.space.suggest,
        points,
        Calls(
            partial(train_trial, sweep, place),
            partial(ledger.watch, study.folder, goal),
            partial(ask_to_end, study.folder),
        ),
    )
    return ledger.read(study.folder)


def confirm(sweep: Sweep, study: Study, group: Group, seeds: int, environment: Mapping[str, str]) -> bool:
    """Train the best point and the base to their ends on `seeds` seeds each, and compare. False: stopped before."""
    top = ledger.best(ledger.read(sweep.folder), study.mode)
    assert top is not None  # _check_scores
    points = [point | {"seed": seed} for seed in range(seeds) for point in (dict(top.point), {})]
    again = sweep.within(CONFIRM)
    again.folder.mkdir(exist_ok=True)
    study = replace(study, folder=again.folder, trials=len(points), scheduler="none", hours=None)
    rows = let_run(again, study, group, points, environment)
    write_confirmation(sweep, rows)
    return not unfinished(rows, study)


def unfinished(rows: list[Row], study: Study) -> bool:
    """Trials that have not ended, or, unless the time was bounded, not begun."""
    return any(not row.ended for row in rows) or (len(rows) < study.trials and study.hours is None)


@contextmanager
def tracked(sweep: Sweep) -> Iterator[dict[str, str]]:
    """The sweep's parent run in MLflow (`track.mlflow`); gives the variables that put its trials below it.

    What is in the report folder when the block is left becomes its artifacts, the best settings its tags.
    """
    if not sweep.base.track.mlflow:
        yield {}
        return
    tree = yaml.safe_load(sweep.as_yaml())
    parent = ParentRun(sweep.folder, describe(sweep.settings.name, tree), sweep.folder / REPORT, warn=_say)
    status = "KILLED"
    try:
        yield parent.environment()
        status = "FINISHED"
    finally:
        rows = ledger.read(sweep.folder)
        top = ledger.best(rows, sweep.settings.mode)
        for key, value in dict(top.point).items() if top else ():
            parent.tag(f"best.{key}", str(value))
        table = sweep.folder / REPORT / "trials.md"
        if table.exists():
            parent.tag("mlflow.note.content", table.read_text(encoding="utf-8"))
        if any(not row.ended for row in rows):
            status = "KILLED"
        for row in rows:
            parent.send_left(trial_folder(sweep.folder, row.trial), MLFLOW_SAYS[row.status])
        parent.close(status)


def _check_scores(sweep: Sweep, rows: list[Row]) -> None:
    if all(row.score is None for row in rows):
        hours = sweep.settings.hours
        silent = f"sweep.hours = {hours:g} were over" if hours else "no evaluation had it"
        whys = "; ".join(sorted({row.why for row in rows if row.why})) or silent
        raise UserError(f"sweep.metric = {sweep.settings.metric} never appeared: {whys}")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
