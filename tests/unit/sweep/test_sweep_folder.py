"""A sweep's folder is one sweep's, is driven by one process, and says how it stands; anything else is a sentence."""

from __future__ import annotations

import json
import math
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from unsee_dist.errors import UserError
from unsee_dist.files import owner
from unsee_dist.files.trees import sealed
from unsee_dist.sweep import ledger, status
from unsee_dist.sweep.driver import DRIVER, driver_of, make_folder, registered_driver
from unsee_dist.sweep.ledger import Goal, LedgerRow, write
from unsee_dist.sweep.load import load_sweep
from unsee_dist.sweep.settings import Sweep


def sweep_in(folder: Path, *given: str) -> Sweep:
    path = folder / "mine.yaml"
    path.write_text(
        "extends: base.yaml\ntrain: {steps: 100}\nevaluate: {sts: x.tsv}\n"
        "space: {train.lr: {loguniform: [1e-5, 1e-3]}}\n",
        encoding="utf-8",
    )
    return load_sweep(str(path), [f"sweep.dir={folder / 'sweep'}", *given])


def test_the_same_sweep_goes_on_and_another_is_refused_by_name(tmp_path: Path) -> None:
    make_folder(sweep_in(tmp_path))
    make_folder(sweep_in(tmp_path))
    again = load_sweep(status.sweep_file(tmp_path / "sweep"))
    make_folder(again)  # what --resume does
    with pytest.raises(ValueError, match=r"another sweep: warmup: 0.1 there, warmup: 0.2 here"):
        make_folder(sweep_in(tmp_path, "train.warmup=0.2"))
    with pytest.raises(ValueError, match="another sweep: trials: null there, trials: 9 here"):
        make_folder(sweep_in(tmp_path, "sweep.trials=9"))


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="is not empty and not a sweep's folder"):
        make_folder(sweep_in(tmp_path))
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["thesis.tex"]


def test_one_process_drives_and_a_killed_one_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "PATIENCE_S", 0.1)
    with registered_driver(tmp_path):
        with (
            pytest.raises(UserError, match=rf"in use by process {os.getpid()} on .*unsee sweep --stop"),
            registered_driver(tmp_path),
        ):
            pass
        found = driver_of(tmp_path)
        assert found is not None
        assert found.host == socket.gethostname()
        killed = replace(found, token="another", pid=2**22 + 1)  # no such process
    assert driver_of(tmp_path) is None
    owner.owner_file(DRIVER).write(tmp_path, killed)
    assert driver_of(tmp_path) is None
    with registered_driver(tmp_path):
        pass


def test_status_and_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = sweep_in(tmp_path)
    with pytest.raises(ValueError, match="holds no sweep"):
        status.show(tmp_path)
    make_folder(sweep)
    write(sweep.folder, [LedgerRow(1, "a", "complete", {"train.lr": 1e-4}, 100, 100, 71.25)])
    status.show(sweep.folder)
    shown = capsys.readouterr().out
    assert "71.25" in shown
    assert "1 of 16 trials ended; no process drives it" in shown
    with pytest.raises(ValueError, match="is not running"):
        status.stop(sweep.folder)
    monkeypatch.setattr(status, "PATIENCE_S", 0.1)
    (sweep.folder / "confirm").mkdir()
    with registered_driver(sweep.folder), pytest.raises(ValueError, match=r"has not answered.*--resume"):
        status.stop(sweep.folder)
    for place in (sweep.folder, sweep.folder / "confirm"):  # whichever is searched
        assert ledger.watch(place, Goal("dev/sts", "max", trials=1, steps=100), [])


@pytest.mark.parametrize("content", [b"", b"\x00\x00", b'{"format": 2, "host": 3}', b'{"format": 9}'])
def test_a_damaged_file_of_the_folder_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    sweep = sweep_in(tmp_path)
    make_folder(sweep)
    for name in (ledger.LEDGER.name, DRIVER):
        path = sweep.folder / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"{name} (is damaged|has format).*Delete it"):
            status.show(sweep.folder)
        path.unlink()


ROW = {"number": 1, "trial": "a", "status": "complete", "point": {"train.lr": 1e-4}, "score": 71.0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"score": "71"},
        {"score": math.nan},
        {"status": "fine"},
        {"exit_code": 99},
        {"number": 1.5},
        {"note": "mine"},
        {"point": [1]},
    ],
)
def test_a_row_that_nobody_wrote_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    path = tmp_path / ledger.LEDGER.name
    path.write_text(json.dumps(sealed({"format": 2, "time": 1.0, "trials": [ROW]})))
    assert ledger.read(tmp_path)[0].score == 71.0
    path.write_text(json.dumps(sealed({"format": 2, "time": 1.0, "trials": [ROW | wrong]})))
    with pytest.raises(UserError, match=r"trials.json is damaged \(trials"):
        ledger.read(tmp_path)


def test_an_edited_score_of_the_ledger_is_never_shown(tmp_path: Path) -> None:
    tree = sealed({"format": 2, "time": 1.0, "trials": [ROW]})
    (tmp_path / ledger.LEDGER.name).write_text(json.dumps(tree).replace("71.0", "91.0"))
    with pytest.raises(UserError, match=r"trials.json is damaged \(its values are not those"):
        ledger.read(tmp_path)
