"""From a sweep to its answer: make the folder, look at the cluster, run the trials, write the report.

<sweep.dir>/sweep.yaml      the whole sweep, resolved; the same command, or --resume, continues it
           /trials.json     a row a trial
           /trials/ID/      a run like any other
           /tune/           Ray Tune's state, and Ray Train's beside it
           /report/         table, plots, best.yaml
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml

from unsee_dist.config.sections import every_steps
from unsee_dist.errors import ExitCode, UserError, writing
from unsee_dist.files.room import free_bytes, require_room
from unsee_dist.log import LOG, progress_console
from unsee_dist.ray_pool.cluster import connected, nodes, shortage, slots
from unsee_dist.sweep import ledger, tune_state
from unsee_dist.sweep.driver import make_folder, registered_driver, write_progress
from unsee_dist.sweep.failures import begin_attempt, forget_failures
from unsee_dist.sweep.ledger import Goal, LedgerRow
from unsee_dist.sweep.report import CONFIRM, REMEDY, REPORT, write_confirmation, write_report
from unsee_dist.sweep.settings import Sweep
from unsee_dist.sweep.space import Point
from unsee_dist.sweep.study import Calls, Study, TrialState, WorkerGroup
from unsee_dist.sweep.trial import DriverProcess, request_end, train_trial, trial_folder
from unsee_dist.sweep.tune import NAME, search
from unsee_dist.tracking.bars import Update, counted
from unsee_dist.tracking.environment import describe
from unsee_dist.tracking.mlflow_parent import ParentRun

MLFLOW_STATUS = {  # of a trial that is over
    "complete": "FINISHED",
    "stopped": "FINISHED",
    "broken": "FAILED",
    "failed": "FAILED",
    "waiting": "KILLED",
    "running": "KILLED",
}
TUNE_BYTES = 8 * 2**20  # for some hundred trials' state, which Tune rewrites while they run
CARRIED = ("HF_", "UNSEE_", "TRANSFORMERS_", "TOKENIZERS_", "DS_")  # of the environment, to the workers


def run(sweep: Sweep, seeds: int = 0) -> int:
    """Run the sweep, or what is left of it; then the best and the base on so many seeds.

    Returns an ExitCode: COMPLETE, STOPPED when it was stopped before, and of a trial that failed the worst: BUG, MISTAKE,
    TRANSIENT, or RANK_LOST.

    Raises UserError: another sweep's folder, a cluster too small, no trial with a score.
    """
    make_folder(sweep)
    with registered_driver(sweep.folder), connected():
        study, group = make_study(sweep)
        LOG.info(
            f"{sweep.settings.name}: {study.trials} trials of {study.steps} steps on {group.ranks} ranks, "
            f"{study.at_once} at a time, see {sweep.folder}"
        )
        points = sweep.space.grid()[: study.trials] if sweep.settings.search == "grid" else []
        with tracked(sweep) as environment:
            rows = run_trials(sweep, study, group, points, environment)
            done = not unfinished(rows, study)
            write_report(sweep, rows)
            if done and exit_code(rows) is ExitCode.COMPLETE:
                _check_scores(sweep, rows)
            if done and seeds and ledger.best(rows, study.mode) is not None:
                done = confirm(sweep, study, group, seeds, environment)
    if not done:
        if not (sweep.folder / ledger.STOP).exists():  # by a signal, and not by --stop
            write_progress(sweep.folder, sum(row.ended for row in rows))
        LOG.info(f"stopped; the same command continues, or: unsee sweep --resume {sweep.folder}")
        return ExitCode.STOPPED
    failed = [row for row in rows if row.status == "failed"]
    if failed:
        numbers = ", ".join(str(row.number) for row in failed)
        LOG.info(f"failed: trial {numbers}, see above. Try again: unsee sweep --resume {sweep.folder}")
    return exit_code(rows)


SEVERITY = (ExitCode.BUG, ExitCode.MISTAKE, ExitCode.TRANSIENT, ExitCode.RANK_LOST, ExitCode.COMPLETE)


def exit_code(rows: Sequence[LedgerRow]) -> ExitCode:
    """Of a sweep whose trials have all ended: the worst of those that failed, COMPLETE when none has."""
    return min((row.exit_code for row in rows), key=SEVERITY.index, default=ExitCode.COMPLETE)


def make_study(sweep: Sweep) -> tuple[Study, WorkerGroup]:
    """How to search on the connected cluster. UserError: it cannot hold one trial."""
    settings = sweep.settings
    group = WorkerGroup(settings.ranks, settings.cpus, settings.gpus, settings.retries)
    cluster = nodes()
    if lacks := shortage(cluster, group.cpus, group.gpus, group.ranks):
        raise UserError(
            f"sweep.ranks = {group.ranks}: a trial {lacks}. Write fewer ranks, less sweep.cpus or sweep.gpus, "
            "or add nodes to the cluster."
        )
    fit = slots(cluster, group.cpus, group.gpus) // group.ranks
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


def run_trials(
    sweep: Sweep, study: Study, group: WorkerGroup, points: list[Point], environment: Mapping[str, str]
) -> list[LedgerRow]:
    """Run the trials until they have ended or somebody stops them; `points` where they are known before.

    Trials that failed in an earlier start are tried again: the cause may have been mended.
    """
    before = ledger.read(study.folder)
    goes_on = tune_state.is_there(study.folder / NAME, any(row.ended for row in before))
    for row in before:
        forget_failures(trial_folder(study.folder, row.trial))
    carried = {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
    driver = DriverProcess(str(Path.cwd()), carried | dict(environment))
    (sweep.folder / ledger.STOP).unlink(missing_ok=True)
    goal = Goal(study.metric, study.mode, study.trials, study.steps)
    _require_room(study.folder)
    with counted(progress_console(), study.trials, "trials") as update:
        search(
            study,
            group,
            sweep.space.suggest,
            points,
            Calls(
                partial(train_trial, sweep, driver),
                partial(_begin_attempt, study.folder.resolve()),
                partial(_watch, study.folder, goal, update),
                partial(request_end, study.folder),
            ),
            goes_on,
        )
    _require_room(study.folder)
    return ledger.read(study.folder)


def _watch(folder: Path, goal: Goal, update: Update, states: Sequence[TrialState]) -> bool:
    """The ledger's watch, and the bar's; True also where the disk is almost full: Tune would go on with a state that it
    cannot write."""
    if free_bytes(folder) < TUNE_BYTES:
        return True
    stopped = ledger.watch(folder, goal, states)
    rows = ledger.read(folder)
    top, running = ledger.best(rows, goal.mode), sum(not row.ended for row in rows)
    best = f", best {top.score:.4g} (trial {top.number})" if top and top.score is not None else ""
    update(sum(row.ended for row in rows), f"{running} running{best}")
    return stopped


def _require_room(folder: Path) -> None:
    require_room(
        folder, TUNE_BYTES, "A sweep's state", "Make room and write the same command again: it continues."
    )


def _begin_attempt(folder: Path, trial: str) -> str | None:
    return begin_attempt(trial_folder(folder, trial))


def confirm(
    sweep: Sweep, study: Study, group: WorkerGroup, seeds: int, environment: Mapping[str, str]
) -> bool:
    """Train the best point and the base to their ends on `seeds` seeds each, and compare. False: stopped before."""
    top = ledger.best(ledger.read(sweep.folder), study.mode)
    assert top is not None
    points = [point | {"seed": seed} for seed in range(seeds) for point in (dict(top.point), {})]
    again = sweep.within(CONFIRM)
    with writing(again.folder, REMEDY):
        again.folder.mkdir(exist_ok=True)
    study = replace(study, folder=again.folder, trials=len(points), scheduler="none", hours=None)
    rows = run_trials(again, study, group, points, environment)
    write_confirmation(sweep, rows)
    return not unfinished(rows, study)


def unfinished(rows: list[LedgerRow], study: Study) -> bool:
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
    parent = ParentRun(
        sweep.folder, describe(sweep.settings.name, tree), sweep.folder / REPORT, warn=LOG.warning
    )
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
            parent.send_left(trial_folder(sweep.folder, row.trial), MLFLOW_STATUS[row.status])
        parent.close(status)


def _check_scores(sweep: Sweep, rows: list[LedgerRow]) -> None:
    if all(row.score is None for row in rows):
        hours = sweep.settings.hours
        no_reason = f"sweep.hours = {hours:g} were over" if hours else "no evaluation had it"
        reasons = "; ".join(sorted({row.why for row in rows if row.why})) or no_reason
        raise UserError(f"sweep.metric = {sweep.settings.metric} never appeared: {reasons}")
