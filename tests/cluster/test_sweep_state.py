"""Two sweeps on one folder at once; and Ray Tune's own state, torn as a kill or a full disk tears it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.raylets import Raylets, raylets
from cluster.test_sweep import PATIENCE_S, UNSEE, refused, trials, write
from integration import tiny
from integration.tiny import Tiny

from unsee_dist.errors import UserError
from unsee_dist.sweep import tune_state

TPE = ({"trials": 2, "ranks": 1, "scheduler": "none"}, {"train.lr": {"loguniform": [1e-4, 1e-3]}})
GRID = ({"search": "grid", "ranks": 1, "scheduler": "none"}, {"train.lr": {"choice": ["1e-3", "1e-4"]}})
SECRETS = {"HF_TOKEN": "hf_tokenOfMine123", "MLFLOW_TRACKING_PASSWORD": "Pa55w0rd-of-mine"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Raylets]:
    with raylets(2, **SECRETS) as started:
        yield started


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny.make(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="module", params=["tpe", "grid"])
def swept(cluster: Raylets, made: Tiny, request: pytest.FixtureRequest) -> Path:
    """The file of a sweep that is complete."""
    path = write(made, request.param, 8, *(TPE if request.param == "tpe" else GRID))
    done = tiny.run([UNSEE, "sweep", str(path)], 2 * PATIENCE_S, env=cluster.env)
    assert done.returncode == 0, done.stdout + done.stderr
    return path


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def state_files(tune: Path) -> list[Path]:
    return sorted(path for path in tune.iterdir() if path.is_file() and not path.name.startswith("."))


def copied(folder: Path, into: Path) -> Path:
    """A copy of the whole sweep's folder."""
    shutil.copytree(folder, into / "sweep", symlinks=True)
    return into / "sweep"


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_two_sweeps_at_once_on_one_folder_are_one(cluster: Raylets, made: Tiny) -> None:
    """Both from the first moment, and a third while the first runs; by --resume, too."""
    path = write(made, "twice", 40, *GRID)
    folder, command = made.folder / "twice", [UNSEE, "sweep", str(path)]
    first, second = (tiny.start(command, env=cluster.env) for _ in range(2))
    until = time.monotonic() + PATIENCE_S
    while first.poll() is None and second.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    driver, other = (first, second) if second.poll() is not None else (second, first)
    for again in (command, [UNSEE, "sweep", "--resume", str(folder)]):
        again_ended = tiny.run(again, PATIENCE_S, env=cluster.env)
        refused(
            again_ended, f"sweep.dir = {folder} is in use by process {driver.pid} on ", "unsee sweep --stop"
        )
    refused(tiny.finish(other, PATIENCE_S), str(folder))
    done = tiny.finish(driver, 2 * PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = trials(folder)
    assert [row["status"] for row in rows] == ["complete", "complete"]
    assert sorted(path.name for path in (folder / "trials").iterdir()) == sorted(row["trial"] for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_each_torn_file_is_named_and_nothing_is_lost(swept: Path, tmp_path: Path) -> None:
    folder = copied(swept.with_suffix(""), tmp_path)
    whole = snapshot(folder)
    assert tune_state.is_there(folder / "tune", begun=True)
    files = state_files(folder / "tune")
    assert {path.name.split("-")[0] for path in files} >= {"tuner.pkl", "experiment_state"}
    for path in files:
        data = path.read_bytes()
        for torn in (b"", data[:1], data[: len(data) // 2], data[:-1], bytes(len(data))):
            path.write_bytes(torn)
            with pytest.raises(UserError) as caught:
                tune_state.is_there(folder / "tune", begun=True)
            assert f"{path}, Ray Tune's state of this search, is damaged" in str(caught.value)
            assert f"unsee report {folder}" in str(caught.value)
        path.unlink()
        with pytest.raises(UserError, match=r"is damaged \(it is not there\)"):
            tune_state.is_there(folder / "tune", begun=True)
        path.write_bytes(data)
    assert snapshot(folder) == whole


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_torn_state_by_the_command_itself(cluster: Raylets, swept: Path) -> None:
    folder = swept.with_suffix("")
    whole = snapshot(folder)
    state = max((folder / "tune").glob("experiment_state-*.json"))
    state.write_bytes(state.read_bytes()[:100])
    torn = snapshot(folder)
    done = tiny.run([UNSEE, "sweep", str(swept)], PATIENCE_S, env=cluster.env)
    refused(done, str(state), f"unsee report {folder}")
    assert snapshot(folder) == torn
    shown = tiny.run([UNSEE, "report", str(folder)], PATIENCE_S, env=cluster.env)  # what the sentence says
    assert shown.returncode == 0, shown.stderr
    state.write_bytes(whole[str(state.relative_to(folder))])
    for path in (folder / "tune").rglob("*"):  # of single trials: nobody reads them again
        if path.is_file() and path.parent != folder / "tune":
            path.write_bytes(b"")
    again = tiny.run([UNSEE, "sweep", str(swept)], PATIENCE_S, env=cluster.env)
    assert again.returncode == 0, again.stdout + again.stderr
    assert [row["status"] for row in trials(folder)] == ["complete", "complete"]


@pytest.mark.slow
def test_no_secret_of_the_driver_is_in_the_folder(swept: Path) -> None:
    """Tokens and passwords travel to the workers; Ray writes its own state meanwhile."""
    found = [
        (name, secret)
        for name, data in snapshot(swept.with_suffix("")).items()
        for secret in SECRETS.values()
        if secret.encode() in data or secret.encode().hex().encode() in data
    ]
    assert found == []


def test_a_search_that_was_stopped_in_its_first_seconds_begins_anew(tmp_path: Path) -> None:
    assert not tune_state.is_there(tmp_path / "tune", begun=False)
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "tuner.pkl").write_bytes(b"x")
    assert not tune_state.is_there(tmp_path / "tune", begun=False)
    with pytest.raises(UserError, match=r"experiment_state-\*.json, .* is damaged \(it is not there\)"):
        tune_state.is_there(tmp_path / "tune", begun=True)
    os.mkfifo(tmp_path / "tune" / "experiment_state-2000.json")
    with pytest.raises(
        UserError, match=r"experiment_state-2000.json cannot be read \(It is not a regular file"
    ):
        tune_state.is_there(tmp_path / "tune", begun=True)
