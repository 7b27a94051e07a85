"""`unsee runs`: every run below a folder once, the newest first, for people and for machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner
from unit.report.made_runs import export, make_run

from unsee_dist.cli import app
from unsee_dist.errors import UserError


def listed(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["runs", *arguments])
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """runs/ with two runs, a sweep's trial and a project's config.yaml, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    make_run(tmp_path / "runs" / "good", {10: 61.0, 40: 63.25}, "run.name=good")
    export(tmp_path / "runs" / "good", "final", 40)
    make_run(tmp_path / "runs" / "bad", {10: 58.0}, reached=12)
    make_run(tmp_path / "runs" / "sweep" / "trials" / "t1")
    (tmp_path / "runs" / "config.yaml").write_text("train: {steps: 3}\n")
    (tmp_path / "runs" / ".hidden").mkdir()
    return tmp_path


@pytest.mark.usefixtures("place")
def test_each_run_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    head, *lines = listed().splitlines()
    assert head.split() == ["run", "state", "step", "best", "gain", "when", "where"]
    cells = {line.split()[0]: line.split() for line in lines}
    assert cells["good"][1:7] == ["complete", "40/40", "sts", "63.25", "@", "40"]
    assert cells["good"][7] == "+3.25"
    assert cells["good"][-1] == "node-7"
    assert cells["bad"][1:3] == ["begun", "12/40"]
    assert cells["bad"][7] == "-2.00"
    assert cells["sweep/trials/t1"][1:5] == ["begun", "40/40", "–", "–"]
    assert len(cells) == 3
    monkeypatch.setenv("COLUMNS", "80")
    assert all(len(line) <= 80 for line in listed().splitlines())


@pytest.mark.usefixtures("place")
def test_json_has_every_number_in_full() -> None:
    rows = {row["run"]: row for row in json.loads(listed("--json"))}
    assert rows["good"] | {"changed": None} == rows["good"] | {
        "state": "complete",
        "step": 40,
        "steps": 40,
        "metric": "dev/sts",
        "before": 60.0,
        "best": 63.25,
        "best_step": 40,
        "gain": 3.25,
        "host": "node-7",
        "ranks": 2,
        "problems": [],
        "changed": None,
    }
    assert rows["sweep/trials/t1"]["best"] is None


@pytest.mark.usefixtures("place")
def test_the_newest_is_first() -> None:
    names = [row["run"] for row in json.loads(listed("--json"))]
    assert names.index("bad") == 2  # its last line is the oldest


@pytest.mark.usefixtures("place")
def test_a_run_itself_may_be_given() -> None:
    (row,) = json.loads(listed("runs/good", "--json"))
    assert row["run"] == "good"


def test_a_damaged_run_has_its_line_and_its_sentence(place: Path) -> None:
    (place / "runs" / "bad" / "metrics.jsonl").write_text("{}\n{}\n")
    out = listed()
    assert "bad: runs/bad/metrics.jsonl, line 1 is damaged" in out
    assert "63.25" in out


def test_a_folder_without_runs_and_one_that_is_not_there(place: Path) -> None:
    (place / "empty").mkdir()
    assert "has no run" in listed("empty")
    with pytest.raises(UserError, match="nowhere is not a folder"):
        listed("nowhere")


def test_the_home_folder_is_not_printed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(place))
    assert str(place) not in listed("--json")
