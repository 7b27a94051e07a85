"""Ranks that start in a second, because a server that has imported everything forks them.

They are processes as any other and end by SIGKILL as any other; only the imports, most of the time of a cold start,
are not made again and again. Instants drawn over such a run lie in its training, not in its imports.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from integration import tiny

IMPORTED = [
    *("unsee_dist.run", "deepspeed", "deepspeed.runtime.zero.muon.muon_optimizer"),
    *("transformers.models.bert.modeling_bert", "transformers.models.bert.tokenization_bert"),
]
SERVER = multiprocessing.get_context("forkserver")


@dataclass
class Warm:
    """The processes of one run, in rank order; `output` is what they print."""

    processes: list[BaseProcess]
    output: list[Path]

    @property
    def codes(self) -> list[int | None]:
        """As subprocess has them: -9 for SIGKILL, None while a rank runs."""
        return [process.exitcode for process in self.processes]

    def text(self) -> str:
        return "\n".join(f"rank {rank}: {path.read_text()}" for rank, path in enumerate(self.output))

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def prepare() -> None:
    """Before the first start: the server is made once, with the environment of that moment."""
    os.environ.update(tiny.environment(PYTHONPATH=os.pathsep.join(sys.path)))
    SERVER.set_forkserver_preload(IMPORTED)


def start(size: int, folder: Path, arguments: list[str], **variables: str) -> Warm:
    """`size` ranks of unsee_dist/train.py; what they print goes to files in `folder`."""
    port, started = str(tiny.free_port()), Warm([], [])
    for rank in range(size):
        meeting = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        meeting |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        output = folder / f"said-{rank}.txt"
        output.write_text("")
        process = SERVER.Process(target=_rank, args=(arguments, meeting | variables, output))
        process.start()
        started.processes.append(process)
        started.output.append(output)
    return started


def _rank(arguments: list[str], variables: dict[str, str], path: Path) -> None:
    if "deepspeed" not in sys.modules:
        raise RuntimeError(f"the server has not imported {IMPORTED}: nothing would be won")
    output = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(variables)
    from unsee_dist.train import main

    sys.exit(main(arguments))
