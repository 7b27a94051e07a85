"""The ledger of a sweep: trials.json, a row a trial, rewritten as Ray Tune tells it. What people and reports read.

It is derived: Tune says which trials there are and how each stands, a trial's own folder says what it has reached.
So a trial is one row, however often it, its workers or the sweep were killed.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unsee_dist.files.atomic import write_file
from unsee_dist.sweep.space import overrides
from unsee_dist.sweep.trial import OUTCOME, evaluations, trial_folder, worth
from unsee_dist.tracking.metrics_file import MetricsFile
from unsee_dist.tracking.metrics_file import read as read_metrics

if TYPE_CHECKING:
    from unsee_dist.sweep.tune import TrialState

LEDGER, STOP = "trials.json", "stop"
Status = Literal["waiting", "running", "complete", "stopped", "broken", "failed"]
ENDED: tuple[Status, ...] = ("complete", "stopped", "broken", "failed")
BAD: tuple[Status, ...] = ("broken", "failed")


@dataclass(frozen=True)
class Row:
    """A trial. number: from 1, in the order of their making. step, score: of its best evaluation; None before one.

    complete: all steps taken; stopped: given up by the scheduler; broken: its run said why not (collapse, not finite), failed:
    it died more often than `sweep.retries`. Those two count as worse than any score.
    """

    number: int
    trial: str
    status: Status
    point: Mapping[str, Any]
    reached: int = 0  # the step of its newest evaluation
    step: int | None = None
    score: float | None = None
    why: str = ""
    scores: Mapping[str, float | None] = field(default_factory=dict)  # of its best evaluation

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def settings(self) -> str:
        return " ".join(overrides(_short(self.point)))


@dataclass(frozen=True)
class Goal:
    """What a sweep looks for, and how far."""

    metric: str
    mode: str
    trials: int
    steps: int


def watch(folder: Path, goal: Goal, states: Sequence[TrialState]) -> bool:
    """Bring the ledger up to date and say what is new. True when somebody asked the sweep to stop."""
    before = {row.trial: row for row in read(folder)}
    rows = [_row(folder, goal, number, state, before) for number, state in enumerate(states, start=1)]
    if rows != list(before.values()):
        write(folder, rows)
        _chart(folder, goal, rows)
        for row in rows:
            old = before.get(row.trial)
            if old is None or old.status != row.status:
                print(said(row, rows, goal), file=sys.stderr, flush=True)
    return (folder / STOP).exists()


def read(folder: Path) -> list[Row]:
    """The rows in the order of their making; [] before the first."""
    path = folder / LEDGER
    if not path.exists():
        return []
    return [Row(**row) for row in json.loads(path.read_bytes())["trials"]]


def write(folder: Path, rows: Sequence[Row]) -> None:
    told = {"time": time.time(), "trials": [asdict(row) for row in rows]}
    write_file(folder / LEDGER, json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def best(rows: Sequence[Row], mode: str) -> Row | None:
    """The row with the best score of all that are sound; None before the first score."""
    sound = [row for row in rows if row.score is not None and row.status not in BAD]
    sign = 1 if mode == "max" else -1
    return max(sound, key=lambda row: sign * (row.score or 0.0), default=None)


def ranked(rows: Sequence[Row], mode: str) -> list[Row]:
    """Best first; without a score, broken and failed ones last."""
    sign = -1 if mode == "max" else 1
    return sorted(
        rows, key=lambda row: (row.status in BAD, row.score is None, sign * (row.score or 0.0), row.number)
    )


def said(row: Row, rows: Sequence[Row], goal: Goal) -> str:
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


def _chart(folder: Path, goal: Goal, rows: Sequence[Row]) -> None:
    """A line of the sweep's own metrics.jsonl for each trial that has ended: how many, and the best so far."""
    path, ended, leader = folder / "metrics.jsonl", sum(row.ended for row in rows), best(rows, goal.mode)
    lines = read_metrics(path)
    if leader is not None and ended > (int(lines[-1]["step"]) if lines else 0):
        told = {"step": ended, f"best/{goal.metric}": leader.score, "time": time.time()}
        chart = MetricsFile(path)
        chart.write(told)
        chart.close()


def _row(folder: Path, goal: Goal, number: int, state: TrialState, before: Mapping[str, Row]) -> Row:
    old = before.get(state.id)
    reached = int(state.last.get("step", 0))
    if old is not None and old.reached >= reached and old.status == _status(state, old.status):
        return old
    run = trial_folder(folder, state.id)
    lines = evaluations(run)
    top = _best_line(lines, goal)
    outcome = _outcome(run)
    status = _status(state, outcome.get("outcome", ""))
    why = state.error or (outcome.get("why", "") if status == "broken" else "")
    return Row(
        number,
        state.id,
        status,
        dict(state.point),
        reached=max(reached if status != "broken" else 0, *(line["step"] for line in lines), 0),
        step=top["step"] if top else None,
        score=top[goal.metric] if top else None,
        why=why,
        scores={key: value for key, value in (top or {}).items() if key.startswith("dev/")},
    )


def _status(state: TrialState, outcome: str) -> Status:
    if state.status == "ERROR":
        return "failed"
    if state.status == "TERMINATED":
        return "complete" if outcome == "complete" else "broken" if outcome == "broken" else "stopped"
    return "running" if state.status == "RUNNING" else "waiting"


def _best_line(lines: Sequence[dict[str, Any]], goal: Goal) -> dict[str, Any] | None:
    sign = 1 if goal.mode == "max" else -1
    sound = [line for line in lines if math.isfinite(line.get(goal.metric) or math.nan)]
    sound = [line for line in sound if not line.get("dev/collapsed")]
    return max(sound, key=lambda line: sign * worth(line, goal.metric, goal.mode), default=None)


def _outcome(run: Path) -> dict[str, Any]:
    path = run / OUTCOME
    return json.loads(path.read_bytes()) if path.exists() else {}


def _short(point: Mapping[str, Any]) -> dict[str, Any]:
    return {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in point.items()}
