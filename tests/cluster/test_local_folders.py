"""The scripts of the local clusters take a folder of their own, and remove nothing but what they made in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration import tiny
from integration.tiny import REPOSITORY

CLUSTER = REPOSITORY / "cluster"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short name: Ray's sockets are below it."""
    made = Path(tempfile.mkdtemp(prefix="c-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.parametrize("kind", ["ray-local", "slurm-local", "mlflow"])
def test_a_folder_with_other_things_in_it_is_refused(folder: Path, kind: str) -> None:
    if kind == "slurm-local" and (os.geteuid() != 0 or shutil.which("slurmctld") is None):
        pytest.skip("needs root and slurm-wlm")
    if kind == "mlflow" and not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("needs postgresql")
    (folder / "thesis.tex").write_text("mine")
    started = tiny.run([str(CLUSTER / kind / "start.sh"), str(folder)], 60)
    assert started.returncode == 2, started.stdout + started.stderr
    assert f"DIR = {folder} is there" in started.stderr
    stopped = tiny.run([str(CLUSTER / kind / "stop.sh"), str(folder)], 60)
    assert stopped.returncode == 2
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_a_folder_whose_name_is_too_long_for_slurms_sockets_is_refused(tmp_path: Path) -> None:
    place = tmp_path / ("x" * 80)
    started = tiny.run([str(CLUSTER / "slurm-local" / "start.sh"), str(place)], 60)
    assert started.returncode == 2
    assert "use one of at most 70" in started.stderr
    assert not place.exists()


@pytest.mark.parametrize("kind", ["ray-local", "slurm-local", "mlflow"])
def test_what_looks_like_a_cluster_and_was_not_made_by_start_stays(folder: Path, kind: str) -> None:
    """`environment`, `slurm.conf` and `settings` are names of anybody's files."""
    for name in ("environment", "slurm.conf", "settings", "token", "ray/paper.tex", "state/paper.tex"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    before = sorted(folder.rglob("*"))
    stopped = tiny.run([str(CLUSTER / kind / "stop.sh"), str(folder)], 60)
    assert stopped.returncode == 2
    assert "start.sh has made no" in stopped.stderr
    assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
def test_a_ray_cluster_in_a_folder_with_a_blank_leaves_what_the_user_put_there(folder: Path) -> None:
    place = folder / "my ray"
    env = {key: value for key, value in tiny.environment().items() if key != "RAY_ADDRESS"}
    try:
        started = tiny.run([str(CLUSTER / "ray-local" / "start.sh"), str(place), "1"], 300, env=env)
        assert started.returncode == 0, started.stdout + started.stderr
        script = f"set -a; . '{place}/environment'; set +a; echo \"$RAY_AUTH_TOKEN_PATH\"; ray status"
        read = subprocess.run(
            ["bash", "-c", script],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env=env | {"PATH": f"{tiny.BIN}:{env['PATH']}"},
        )
        assert read.stdout.startswith(f"{place}/token\n"), read.stderr
        assert "1.0 CPU" in read.stdout, read.stdout + read.stderr
        (place / "thesis.tex").write_text("mine")
    finally:
        stopped = tiny.run([str(CLUSTER / "ray-local" / "stop.sh"), str(place)], 120, env=env)
    assert stopped.returncode == 0, stopped.stderr
    assert "left in" in stopped.stderr
    assert [path.name for path in place.iterdir()] == ["thesis.tex"]
    assert tiny.run(["pgrep", "-f", str(place)], 10).stdout == ""
