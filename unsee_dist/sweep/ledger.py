"""The ledger of a sweep: trials.json, a row a trial, rewritten after each change. What people and reports read.

It is derived: Tune has the trials and the state of each, a trial's own folder has what it has reached.
So a trial is one row, however often it, its workers or the sweep were killed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import with_config

from unsee_dist.errors import ExitCode
from unsee_dist.files.records import STRICT, RecordFile
from unsee_dist.log import LOG
from unsee_dist.metrics.names import COLLAPSED, DEV, STEP, TIME, dev
from unsee_dist.sweep.failures import describe_failures, read_failures
from unsee_dist.sweep.space import overrides
from unsee_dist.sweep.trial import OUTCOME, TrialOutcome, comparable_score, evaluations, trial_folder
from unsee_dist.tracking.metrics_file import METRICS, MetricsFile
from unsee_dist.tracking.metrics_file import read as read_metrics

if TYPE_CHECKING:
    from unsee_dist.sweep.study import TrialState

STOP = "stop"
TrialStatus = Literal["waiting", "running", "complete", "stopped", "broken", "failed"]
ENDED: tuple[TrialStatus, ...] = ("complete", "stopped", "broken", "failed")
BAD: tuple[TrialStatus, ...] = ("broken", "failed")


@with_config(STRICT)
@dataclass(frozen=True)
class LedgerRow:
    """A trial. number: from 1, in the order of their making. step, score: of its best evaluation; None before one.

    complete: all steps taken; stopped: given up by the scheduler; broken: its run said why not (collapse, not finite);
    failed: by an error that would come again, or more often than `sweep.retries`; exit_code says which. The last two
    count as worse than any score.
    """

    number: int
    trial: str
    status: TrialStatus
    point: Mapping[str, Any]
    reached: int = 0  # the step of its newest evaluation
    step: int | None = None
    score: float | None = None
    why: str = ""
    scores: Mapping[str, float | None] = field(default_factory=dict)  # of its best evaluation
    exit_code: ExitCode = ExitCode.COMPLETE  # of what failed

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def settings(self) -> str:
        return " ".join(overrides(_short(self.point)))


@dataclass(frozen=True)
class Ledger:
    """trials.json. time: of its writing, in seconds since 1970."""

    time: float
    trials: list[LedgerRow]


LEDGER = RecordFile(
    "trials.json", Ledger, version=2, remedy="Delete it; --resume writes it again from the trials' folders."
)


@dataclass(frozen=True)
class Goal:
    """What a sweep looks for, and how far."""

    metric: str
    mode: str
    trials: int
    steps: int


def watch(folder: Path, goal: Goal, states: Sequence[TrialState]) -> bool:
    """Bring the ledger up to date and log what is new. True when somebody asked the sweep to stop."""
    before = {row.trial: row for row in read(folder)}
    rows = [_row(folder, goal, number, state, before) for number, state in enumerate(states, start=1)]
    if rows != list(before.values()):
        write(folder, rows)
        _append_progress(folder, goal, rows)
        for row in rows:
            old = before.get(row.trial)
            if old is None or old.status != row.status:
                if row.status == "failed":
                    LOG.error(_description(folder, row, states[row.number - 1]))
                LOG.info(status_line(row, rows, goal))
    return (folder / STOP).exists()


def read(folder: Path) -> list[LedgerRow]:
    """The rows in the order of their making; [] before the first. UserError: the file is damaged."""
    ledger = LEDGER.read(folder)
    return ledger.trials if ledger else []


def write(folder: Path, rows: Sequence[LedgerRow]) -> None:
    LEDGER.write(folder, Ledger(time.time(), list(rows)))


def best(rows: Sequence[LedgerRow], mode: str) -> LedgerRow | None:
    """The row with the best score of all that are sound; None before the first score."""
    sound = [row for row in rows if row.score is not None and row.status not in BAD]
    sign = 1 if mode == "max" else -1
    return max(sound, key=lambda row: sign * (row.score or 0.0), default=None)


def ranked(rows: Sequence[LedgerRow], mode: str) -> list[LedgerRow]:
    """Best first; without a score, broken and failed ones last."""
    sign = -1 if mode == "max" else 1
    return sorted(
        rows, key=lambda row: (row.status in BAD, row.score is None, sign * (row.score or 0.0), row.number)
    )


def status_line(row: LedgerRow, rows: Sequence[LedgerRow], goal: Goal) -> str:
    """One line about a trial whose status is new."""
    parts = [f"trial {row.number}/{goal.trials} {row.status}"]
    if row.score is not None:
        parts.append(f"{goal.metric} {row.score:.4g} at step {row.step} of {row.reached}/{goal.steps}")
    parts.append(row.settings)
    if row.why:
        parts.append(row.why)
    leader = best(rows, goal.mode)
    if row.ended and leader is not None:
        ended = sum(other.ended for other in rows)
        parts.append(f"{ended} ended, best {leader.score:.4g} (trial {leader.number})")
    return " | ".join(parts)


def _append_progress(folder: Path, goal: Goal, rows: Sequence[LedgerRow]) -> None:
    """A line of the sweep's own metrics.jsonl for each trial that has ended: how many, and the best so far."""
    path, ended, leader = folder / METRICS, sum(row.ended for row in rows), best(rows, goal.mode)
    lines = read_metrics(path)
    if leader is not None and ended > (int(lines[-1][STEP]) if lines else 0):
        file = MetricsFile(path)
        file.write({STEP: ended, f"best/{goal.metric}": leader.score, TIME: time.time()})
        file.close()


def _row(
    folder: Path, goal: Goal, number: int, state: TrialState, before: Mapping[str, LedgerRow]
) -> LedgerRow:
    old = before.get(state.id)
    reached = int(state.last.get(STEP, 0))
    run = trial_folder(folder, state.id)
    if state.status != "TERMINATED" and any(failure.recurs for failure in read_failures(run)):
        state = replace(state, status="ERROR")  # Tune only counts down the attempts that are refused
    if old is not None and old.reached >= reached and old.status == _status(state, old.status):
        return old
    lines = evaluations(run)
    top = _best_line(lines, goal)
    outcome = OUTCOME.read(run)
    status = _status(state, outcome.outcome if outcome else "")
    why, code = _failure(run, state, status, outcome)
    return LedgerRow(
        number,
        state.id,
        status,
        dict(state.point),
        reached=max(reached if status != "broken" else 0, *(line[STEP] for line in lines), 0),
        step=top[STEP] if top else None,
        score=top[goal.metric] if top else None,
        why=why,
        scores=_finite({key: value for key, value in (top or {}).items() if key.startswith(DEV)}),
        exit_code=code,
    )


def _description(folder: Path, row: LedgerRow, state: TrialState) -> str:
    """What a person needs of a failed trial. Without a record of ours, Ray's whole text: a worker or a node that died."""
    run = trial_folder(folder, row.trial)
    failures = read_failures(run)
    if failures:
        return describe_failures(str(row.number), run, failures)
    return f"{state.error}\ntrial {row.number} failed, see above"


def _failure(
    run: Path, state: TrialState, status: TrialStatus, outcome: TrialOutcome | None
) -> tuple[str, ExitCode]:
    """Why a broken or a failed trial is one, and the exit code of it."""
    if status == "broken":
        return (outcome.why if outcome else ""), ExitCode.COMPLETE
    if status != "failed":
        return "", ExitCode.COMPLETE
    failures = read_failures(run)
    if failures:
        return failures[0].line, failures[0].code
    return (state.error or "unknown").splitlines()[-1], ExitCode.RANK_LOST


def _status(state: TrialState, outcome: str) -> TrialStatus:
    if state.status == "ERROR":
        return "failed"
    if state.status == "TERMINATED":
        return "complete" if outcome == "complete" else "broken" if outcome == "broken" else "stopped"
    return "running" if state.status == "RUNNING" else "waiting"


def _best_line(lines: Sequence[dict[str, Any]], goal: Goal) -> dict[str, Any] | None:
    sign = 1 if goal.mode == "max" else -1
    sound = [line for line in lines if math.isfinite(line.get(goal.metric, math.nan))]
    sound = [line for line in sound if not line.get(dev(COLLAPSED))]
    return max(sound, key=lambda line: sign * comparable_score(line, goal.metric, goal.mode), default=None)


def _finite(scores: Mapping[str, float]) -> dict[str, float | None]:
    """None for what is not finite, which JSON does not have."""
    return {key: value if math.isfinite(value) else None for key, value in scores.items()}


def _short(point: Mapping[str, Any]) -> dict[str, Any]:
    return {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in point.items()}
