"""The mark that lets a batch job requeue itself: as far as the sweep is, so that two equal ones are no progress."""

from __future__ import annotations

from pathlib import Path

import pytest

from unsee_dist.supervision.stop_mark import OF_SWEEP
from unsee_dist.sweep.driver import write_progress


def _saved(folder: Path, trial: str, *steps: int) -> None:
    for step in steps:
        (folder / "trials" / trial / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)


def test_the_mark_counts_the_newest_checkpoint_of_each_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    write_progress(tmp_path, 0)  # no batch system asks
    monkeypatch.setenv(OF_SWEEP, str(mark))
    write_progress(tmp_path, 0)
    assert mark.read_text() == "0 trials ended, 0 steps saved\n"
    _saved(tmp_path, "a", 10, 20)
    _saved(tmp_path, "b", 5)
    write_progress(tmp_path, 1)
    assert mark.read_text() == "1 trials ended, 25 steps saved\n"
    _saved(tmp_path, "a", 30)
    write_progress(tmp_path, 1)
    assert mark.read_text() == "1 trials ended, 35 steps saved\n"


def test_a_mark_that_cannot_be_written_is_said_and_the_sweep_ends_as_it_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By an error the exit code of a stop would become that of a mistake."""
    monkeypatch.setenv(OF_SWEEP, str(tmp_path / "missing" / "mark"))
    write_progress(tmp_path, 0)
    assert f"{OF_SWEEP} = {tmp_path}/missing/mark cannot be written" in capsys.readouterr().err
