"""A real MLflow server with PostgreSQL for a test, by cluster/mlflow."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from integration import tiny
from integration.tiny import REPOSITORY

SCRIPTS = REPOSITORY / "cluster" / "mlflow"


@dataclass(frozen=True)
class Server:
    """`env` reaches it; `settings` are those of start.sh."""

    folder: Path
    settings: dict[str, str]

    def start(self) -> None:
        """Also again after `kill`: the same port, data and passwords."""
        done = tiny.run(
            [str(SCRIPTS / "start.sh"), str(self.folder)], 400, env=tiny.environment(**self.settings)
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def env(self) -> dict[str, str]:
        assignments = (self.folder / "environment").read_text().split()
        return dict(line.split("=", 1) for line in assignments)

    def kill(self) -> None:
        """SIGKILL to MLflow and to PostgreSQL, as when the power is cut."""
        killed = []
        postgres = int((self.folder / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
        for number in (int((self.folder / "mlflow.pid").read_text()), postgres):
            parent = psutil.Process(number)
            for process in [parent, *parent.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    killed.append(process)
        psutil.wait_procs(killed, timeout=30)


@contextlib.contextmanager
def mlflow_server(**settings: str) -> Iterator[Server]:
    """Started; settings: MLFLOW_AUTH and so on."""
    _need_postgresql()
    # Not pytest's folder: PostgreSQL's user may not go through it.
    server = Server(Path(tempfile.mkdtemp(prefix="mlflow-server-")), settings)
    try:
        server.start()
        yield server
    finally:
        subprocess.run([SCRIPTS / "stop.sh", server.folder], timeout=120, check=False)
        shutil.rmtree(server.folder, ignore_errors=True)


def _need_postgresql() -> None:
    if not _postgresql() and os.geteuid() == 0:
        with contextlib.suppress(FileNotFoundError):  # no Debian: said by the skip
            subprocess.run(["apt-get", "update"], capture_output=True, timeout=300, check=False)
            install = ["apt-get", "install", "--yes", "--no-install-recommends", "postgresql"]
            subprocess.run(install, capture_output=True, timeout=600, check=False)
    if not _postgresql():
        pytest.skip(
            "needs PostgreSQL: initdb is not there and could not be installed (apt-get install postgresql)"
        )


def _postgresql() -> bool:
    return shutil.which("initdb") is not None or any(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
