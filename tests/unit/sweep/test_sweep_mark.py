"""The mark that lets a batch job requeue itself: as far as the sweep is, so that two equal ones are no progress."""

from __future__ import annotations

from pathlib import Path

import pytest

from unsee_dist.errors import UserError
from unsee_dist.sweep.driver import MARK, write_progress


def _saved(folder: Path, trial: str, *steps: int) -> None:
    for step in steps:
        (folder / "trials" / trial / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)


def test_the_mark_counts_the_newest_checkpoint_of_each_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    write_progress(tmp_path, 0)  # no batch system asks
    monkeypatch.setenv(MARK, str(mark))
    write_progress(tmp_path, 0)
    assert mark.read_text() == "0 trials ended, 0 steps saved\n"
    _saved(tmp_path, "a", 10, 20)
    _saved(tmp_path, "b", 5)
    write_progress(tmp_path, 1)
    assert mark.read_text() == "1 trials ended, 25 steps saved\n"
    _saved(tmp_path, "a", 30)
    write_progress(tmp_path, 1)
    assert mark.read_text() == "1 trials ended, 35 steps saved\n"


def test_a_mark_in_a_missing_folder_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, str(tmp_path / "missing" / "mark"))
    with pytest.raises(UserError, match=f"{MARK} = .*mark cannot be written"):
        write_progress(tmp_path, 0)
