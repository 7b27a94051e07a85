"""What a folder says of its run: the state it is in, and its scores; what is damaged is named, and the rest is there."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from unit.report.made_runs import export, make_run

from unsee_dist.errors import UserError
from unsee_dist.files.owner import OWNER, owned
from unsee_dist.report import run_files
from unsee_dist.report.run_files import open_run


def test_the_best_is_what_became_best_and_the_gain_is_against_before(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "a", {10: 61.0, 20: 63.5, 40: 62.0}))
    assert (run.before["step"], run.best["step"], run.last["step"]) == (0, 20, 40)
    assert run.best["dev/gain"] == pytest.approx(3.5)
    assert run.last["dev/gain"] == pytest.approx(2.0)
    assert run.problems == ()


def test_scores_before_training_are_never_the_best(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "a", {10: 50.0}))
    assert (run.best["step"], run.best["dev/gain"]) == (10, pytest.approx(-10.0))


def test_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path / "a", {20: 61.0}, reached=25)
    assert open_run(folder).state == "begun"  # no checkpoint: the next start is a fresh one
    export(folder, "final", 20)  # of a shorter run that has grown
    assert open_run(folder).state == "begun"
    (folder / "final" / "unsee.json").unlink()
    (folder / "final" / "README.md").unlink()
    (folder / "final").rmdir()
    export(folder, "final", 25)
    assert open_run(folder).state == "complete"
    with owned(folder / OWNER, "x", "y"):
        assert open_run(folder).state == "running"
        monkeypatch.setattr(run_files, "SILENT_S", -1.0)
        assert open_run(folder).state == "silent"
    assert open_run(folder).state == "complete"


def test_an_owner_that_was_killed_trains_nothing(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", {20: 61.0})
    if (child := os.fork()) == 0:
        with owned(folder / OWNER, "x", "y"):
            os._exit(0)  # as a kill: nothing is released
    os.waitpid(child, 0)
    assert (folder / OWNER).exists()
    assert open_run(folder).state == "begun"


def test_settings_are_those_of_the_last_start(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", {20: 61.0})
    with (folder / "history.jsonl").open("a") as file:
        file.write('{"step": 9, "time": 2, "ranks": 1, "changed": {"data.workers": [2, 0]}}\n')
    run = open_run(folder)
    assert run.settings["data.workers"] == 0
    assert run.config is not None
    assert run.config.data.workers == 2
    assert run.starts[1].environment == {}  # a line of an earlier version


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "history.jsonl", "owner.json"])
def test_a_damaged_file_is_named_and_the_rest_is_there(tmp_path: Path, name: str) -> None:
    folder = make_run(tmp_path / "a", {20: 61.0})
    (folder / name).write_text("\x00: [\n")
    run = open_run(folder)
    assert any(name in problem for problem in run.problems), run.problems
    assert run.state == "begun"
    assert (run.best.get("dev/sts") == 61.0) is (name != "metrics.jsonl")


def test_what_is_no_run_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("train: {steps: 3}\n")  # of a project
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="unsee runs"):
            open_run(folder)


def test_a_run_that_began_with_another_runs_checkpoint_is_judged_from_there(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", {20: 61.0, 30: 62.0})
    (folder / "history.jsonl").write_text(
        '{"step": 20, "time": 1, "ranks": 1, "changed": {}, "from": "runs/other/checkpoints/step-00000020"}\n'
    )
    run = open_run(folder)
    assert (run.started, run.before["dev/sts"], run.best["dev/sts"]) == (20, 61.0, 62.0)
    assert run.best["dev/gain"] == pytest.approx(1.0)
    assert time.time() > (run.changed_at or 0) > 1e9
