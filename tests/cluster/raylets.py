"""A real Ray cluster for a test, by cluster/ray-local: start, reach, lose a node, end."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from integration import tiny
from integration.tiny import REPOSITORY

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
SCRIPTS = REPOSITORY / "cluster" / "ray-local"


@dataclass(frozen=True)
class Raylets:
    """`env` reaches the cluster: the environment for a command that uses it."""

    folder: Path
    env: dict[str, str]

    def kill_node(self, number: int) -> None:
        """SIGKILL to everything of node `number`, as when its power is cut. Node 1 is the head."""
        session = psutil.Process(int((self.folder / f"node-{number}.pid").read_text()))
        for process in [session, *session.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def processes(self) -> list[psutil.Process]:
        """Whatever runs with this cluster's token: its daemons, its workers, drivers."""
        token = self.env["RAY_AUTH_TOKEN_PATH"]
        everything = psutil.process_iter(["environ"])
        return [p for p in everything if (p.info["environ"] or {}).get("RAY_AUTH_TOKEN_PATH") == token]


def listening(processes: Iterable[psutil.Process]) -> set[str]:
    """The addresses at which these processes can be reached by TCP."""
    addresses = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            addresses |= {
                each.laddr.ip for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN
            }
    return addresses


@contextlib.contextmanager
def raylets(nodes: int = 2, **settings: str) -> Iterator[Raylets]:
    """A cluster of `nodes` raylets of one processor each; settings: RAY_LOCAL_CPUS and so on."""
    # Not pytest's folder: Ray's sockets below it would have names that are too long.
    folder = Path(tempfile.mkdtemp(prefix="raylets-"))
    env = {k: v for k, v in tiny.environment(**settings).items() if k != "RAY_ADDRESS"}
    try:
        started = tiny.run([str(SCRIPTS / "start.sh"), str(folder), str(nodes)], 300, env=env)
        assert started.returncode == 0, started.stdout + started.stderr
        exported = dict(line.split("=", 1) for line in (folder / "environment").read_text().split())
        yield Raylets(folder, env | exported)
    finally:
        subprocess.run([SCRIPTS / "stop.sh", folder], timeout=120, check=False, env=env)
        shutil.rmtree(folder, ignore_errors=True)
