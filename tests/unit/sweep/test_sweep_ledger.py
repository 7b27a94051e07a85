"""The ledger: a row a trial, its score from its own folder; what means nothing is never best."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unsee_dist.sweep import ledger
from unsee_dist.sweep.ledger import Goal
from unsee_dist.sweep.study import TrialState
from unsee_dist.sweep.trial import OUTCOME, WORST, TrialOutcome, comparable_score, trial_folder

GOAL = Goal("dev/sts", "max", trials=3, steps=40)


def trial(
    folder: Path, name: str, scores: dict[int, float | None], outcome: str | None = None, **more: float
) -> None:
    """A run as training leaves it."""
    run = trial_folder(folder, name)
    run.mkdir(parents=True)
    lines = [{"step": 0, "dev/sts": 99.0}, {"step": 1, "loss": 3.0}]
    lines += [{"step": step, "dev/sts": score, **more} for step, score in scores.items()]
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 41, "de'
    )
    if outcome:
        OUTCOME.write(run, TrialOutcome(outcome, f"why {name}"))  # type: ignore[arg-type]


def state(name: str, status: str, step: int = 0) -> TrialState:
    return TrialState(
        name,
        status,
        {"train.lr": 1e-4},
        {"step": step, "dev/sts": 1.0},
        "boom" if status == "ERROR" else None,
    )  # type: ignore[arg-type]


def test_each_trial_is_one_row_and_only_sound_ones_are_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial(tmp_path, "a", {10: 50.0, 20: 70.0, 40: 60.0}, "complete")
    trial(tmp_path, "b", {10: 90.0}, "broken")
    trial(tmp_path, "c", {10: 80.0})
    trial(tmp_path, "d", {10: 95.0, 20: None}, **{"dev/collapsed": 1.0})
    trial(tmp_path, "e", {10: 65.0})
    states = [
        state("a", "TERMINATED", 40),
        state("b", "TERMINATED", 10),
        state("c", "ERROR", 10),
        state("d", "TERMINATED", 20),
        state("e", "RUNNING", 10),
        state("f", "PENDING"),
    ]
    assert not ledger.watch(tmp_path, GOAL, states)
    for _ in range(2):  # told the same again, as after a restart: nothing is counted twice
        rows = ledger.read(tmp_path)
        statuses = ["complete", "broken", "failed", "stopped", "running", "waiting"]
        assert [row.status for row in rows] == statuses
        assert [row.score for row in rows] == [70.0, 90.0, 80.0, None, 65.0, None]
        assert rows[0].step == 20
        assert rows[1].why == "why b"
        assert rows[2].why == "boom"
        top = ledger.best(rows, "max")
        assert top is not None
        assert top.trial == "a"
        assert [row.trial for row in ledger.ranked(rows, "max")] == ["a", "e", "d", "f", "b", "c"]
        assert ledger.best(rows, "min") == rows[4]
        capsys.readouterr()
        ledger.watch(tmp_path, GOAL, states)
        assert capsys.readouterr().err == ""
    states[4] = state("e", "RUNNING", 20)  # news, but of no trial that has ended
    ledger.watch(tmp_path, GOAL, states)
    assert ledger.read(tmp_path)[4].reached == 20
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["best/dev/sts"]) for line in lines] == [(4, 70.0)]


def test_a_score_of_zero_is_a_score_and_one_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    trial(tmp_path, "a", {10: 0.0, 20: None}, "complete", **{"dev/std": float("nan")})
    ledger.watch(tmp_path, GOAL, [state("a", "TERMINATED", 40)])
    (row,) = ledger.read(tmp_path)
    assert (row.score, row.step, row.scores) == (0.0, 10, {"dev/sts": 0.0, "dev/std": None})


def test_a_stop_is_asked_for_by_a_file(tmp_path: Path) -> None:
    assert not ledger.watch(tmp_path, GOAL, [state("a", "RUNNING")])
    (tmp_path / ledger.STOP).touch()
    assert ledger.watch(tmp_path, GOAL, [state("a", "RUNNING")])


@pytest.mark.parametrize("scores", [{}, {"dev/sts": float("nan")}, {"dev/sts": 71.0, "dev/collapsed": 1.0}])
def test_what_means_nothing_is_worst(scores: dict[str, float]) -> None:
    assert comparable_score(scores, "dev/sts", "max") == -WORST
    assert comparable_score(scores, "dev/sts", "min") == WORST
    assert comparable_score({"dev/sts": 71.0, "dev/collapsed": 0.0}, "dev/sts", "max") == 71.0
