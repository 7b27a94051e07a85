"""Ranks of a run as processes of this test: no launcher that would kill or restart them on its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from integration.tiny import REPOSITORY, SCRIPT, environment, free_port


@dataclass
class Ranks:
    """The processes of one run, in rank order."""

    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    output: list[IO[str]] = field(default_factory=list)

    def wait(self, timeout_s: float = 400) -> list[int]:
        """Exit codes in rank order. What does not end in time is killed and fails the test, with all that was printed."""
        until = time.monotonic() + timeout_s
        try:
            return [process.wait(max(0.1, until - time.monotonic())) for process in self.processes]
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"ranks did not end in {timeout_s} s:\n{self.text()}") from None

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def text(self) -> str:
        for stream in self.output:
            stream.seek(0)
        return "\n".join(f"rank {rank}: {stream.read()}" for rank, stream in enumerate(self.output))

    def succeed(self, timeout_s: float = 400) -> None:
        codes = self.wait(timeout_s)
        assert set(codes) == {0}, f"{codes}\n{self.text()}"


def start(size: int, config: Path, *overrides: str, **variables: str) -> Ranks:
    """Start `size` ranks of unsee_dist/train.py."""
    ranks, port = Ranks(), str(free_port())
    for rank in range(size):
        meeting = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        meeting |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        output = tempfile.TemporaryFile("w+")  # noqa: SIM115 (read after the processes ended)
        ranks.output.append(output)
        ranks.processes.append(
            subprocess.Popen(
                [sys.executable, SCRIPT, "--config", str(config), *overrides],
                cwd=REPOSITORY,
                env=environment(**(meeting if size > 1 else {}), **variables),
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
            )
        )
    return ranks
