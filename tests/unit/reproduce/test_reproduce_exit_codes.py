"""What the end of a unit is: a result only where a run broke after its first step; any other keeps its exit code."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
from unit.report.made_runs import make_run

from unsee_dist.errors import ExitCode, exit_code_of, report
from unsee_dist.reproduce import runner
from unsee_dist.reproduce.units import Unit


def ending(folder: Path, code: int, begun: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train a unit whose process ends so."""
    unit = Unit("arm", 0, "", (), folder / "run", folder / "log")
    if begun:
        make_run(unit.folder, {4: 50.0})
    monkeypatch.setattr(runner, "run_logged", lambda *_: code)
    runner.train(unit, None)


def test_a_run_that_broke_after_its_first_step_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(tmp_path, ExitCode.MISTAKE, True, monkeypatch)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("code", "own"),
    [
        (1, ExitCode.BUG),
        (3, ExitCode.RANK_LOST),
        (-9, ExitCode.RANK_LOST),
        (143, ExitCode.RANK_LOST),
        (74, ExitCode.TRANSIENT),
    ],
)
def test_what_is_no_result_ends_the_experiment_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, own: ExitCode, begun: bool
) -> None:
    with pytest.raises(Exception, match=f"with exit code {code}") as met:
        ending(tmp_path, code, begun, monkeypatch)
    assert exit_code_of(met.value) is own
    sent = pickle.loads(pickle.dumps(met.value))  # a worker of a cluster sends it
    assert exit_code_of(sent) is own
    assert str(sent) == str(met.value)
    assert report(met.value) is own


def test_a_mistake_before_the_first_step_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="before its first step") as met:
        ending(tmp_path, ExitCode.MISTAKE, False, monkeypatch)
    assert exit_code_of(met.value) is ExitCode.MISTAKE


def test_a_program_that_is_missing_is_not_said_of_the_log(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        runner.run_logged([str(tmp_path / "nowhere")], tmp_path / "log", None)
    assert runner.run_logged([sys.executable, "-c", "raise SystemExit(7)"], tmp_path / "log", None) == 7


def test_signals_of_a_terminal_reach_the_command_once(tmp_path: Path) -> None:
    """They go to a terminal's process group, and this process passes them on: two stops at once would be one too many."""
    own_group = "import os; raise SystemExit(7 if os.getpgrp() == os.getpid() else 1)"
    assert runner.run_logged([sys.executable, "-c", own_group], tmp_path / "log", None) == 7


def test_a_pause_is_the_commands_too() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:

        def becomes(state: str) -> bool:
            until, now = time.monotonic() + 60, ""
            while now != state and time.monotonic() < until:
                time.sleep(0.02)
                now = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
            return now == state

        assert becomes("S")
        with runner._paused(process):
            assert becomes("T")
        assert becomes("S")
        process.kill()
    with runner._paused(process):  # it has ended
        pass
