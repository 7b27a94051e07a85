"""A real Slurm cluster of two nodes on this machine, started once for all tests here, and a tiny model and corpus."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration import tiny as launch
from slurm_jobs import SCRIPTS, Cluster, need_slurm


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> launch.Tiny:
    return launch.make(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment that reaches the cluster."""
    need_slurm()
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run(
        [SCRIPTS / "start.sh", folder], capture_output=True, text=True, timeout=300, check=False
    )
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield launch.environment(SLURM_CONF=str(folder / "slurm.conf"), PYTHON=sys.executable)
    finally:
        subprocess.run([SCRIPTS / "stop.sh", folder], timeout=180, check=False)


@pytest.fixture
def slurm(cluster: dict[str, str]) -> Iterator[Cluster]:
    """The same, to ask and to strike. A failed test's jobs do not hold up those of the next."""
    slurm_cluster = Cluster(Path(cluster["SLURM_CONF"]).parent, cluster)
    yield slurm_cluster
    slurm_cluster.clear()


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where screenshots go; UNSEE_TEST_SHOTS keeps them."""
    folder = Path(os.environ.get("UNSEE_TEST_SHOTS") or tmp_path / "shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
