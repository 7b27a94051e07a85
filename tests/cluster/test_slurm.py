"""slurm/train.sh on a real Slurm cluster of two nodes, which this test starts on this machine and ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration import tiny as launch
from integration.tiny import REPOSITORY, Tiny

SCRIPTS = REPOSITORY / "cluster" / "slurm-local"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment that reaches the cluster."""
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "munged") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs Slurm: {', '.join(missing)} not installed (apt-get install slurm-wlm munge)")
    if os.geteuid() != 0:
        pytest.skip("needs root: slurmd starts the tasks of others")
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run(
        [SCRIPTS / "start.sh", folder], capture_output=True, text=True, timeout=60, check=False
    )
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield launch.environment(SLURM_CONF=str(folder / "slurm.conf"), PYTHON=sys.executable)
    finally:
        subprocess.run([SCRIPTS / "stop.sh", folder], timeout=60, check=False)


@pytest.mark.slow
def test_two_nodes_make_the_run_of_one_process(cluster: dict[str, str], tiny: Tiny) -> None:
    alone, folder, log = tiny.folder / "alone", tiny.folder / "nodes", tiny.folder / "job.log"
    launch.succeed(launch.command("python", 1, tiny.config, f"run.dir={alone}"))
    submit = ["sbatch", "--wait", "--nodes=2", "--cpus-per-task=1", f"--output={log}"]
    done = launch.run(
        [*submit, "slurm/train.sh", str(tiny.config), f"run.dir={folder}"], env=cluster, timeout_s=240
    )
    assert done.returncode == 0, log.read_text() if log.exists() else done.stderr
    assert launch.losses(folder) == pytest.approx(launch.losses(alone), rel=1e-4)
    assert launch.traced(folder) == launch.traced(alone)
    assert len(list((folder / "trace").iterdir())) == 2
    assert (folder / "final" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_mistake_ends_the_job(cluster: dict[str, str], tiny: Tiny) -> None:
    log = tiny.folder / "mistake.log"
    submit = ["sbatch", "--wait", "--nodes=2", "--cpus-per-task=1", f"--output={log}"]
    done = launch.run(
        [*submit, "slurm/train.sh", str(tiny.config), "train.batch=9"], env=cluster, timeout_s=240
    )
    assert done.returncode == 2, log.read_text()
    assert "train.batch = 9" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_train_sh_says_how_it_is_used() -> None:
    done = launch.run(["bash", "slurm/train.sh"])
    assert done.returncode == 2
    assert "usage: sbatch slurm/train.sh" in done.stderr


def test_scripts_are_executable() -> None:
    scripts: list[Path] = [*SCRIPTS.glob("*.sh"), *(REPOSITORY / "slurm").glob("*.sh")]
    assert len(scripts) >= 4
    assert all(os.access(script, os.X_OK) for script in scripts)
