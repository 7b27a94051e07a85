"""Cases of the bench in processes of their own, on one or more ranks of this host, and the rows that they print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence

from unsee_dist.bench.table import BenchRow
from unsee_dist.errors import UserError
from unsee_dist.supervision.signals import OF_A_LAUNCHER

LAUNCHER_S = 40  # torchrun leaves its ranks 30 s


class ProcessFailed(UserError):
    """A process of a case ended with an error. why: in a line. stderr: the end of what it wrote there."""

    def __init__(self, sentence: str, why: str, stderr: str) -> None:
        super().__init__(sentence)
        self.why, self.stderr = why, stderr

    def __reduce__(self) -> tuple[type[ProcessFailed], tuple[str, str, str]]:
        return type(self), (str(self), self.why, self.stderr)


def in_processes(
    module: str,
    arguments: Sequence[str],
    ranks: int,
    *,
    environment: Mapping[str, str] | None = None,
    limit_s: float | None = None,
) -> BenchRow:
    """The last JSON line of `python -m module arguments...`, on `ranks` ranks that share the cores."""
    *_, last = rows(module, arguments, ranks, environment=environment, limit_s=limit_s)
    return last


def rows(
    module: str,
    arguments: Sequence[str],
    ranks: int,
    *,
    environment: Mapping[str, str] | None = None,
    limit_s: float | None = None,
) -> Generator[BenchRow]:
    """Each JSON line of `python -m module arguments...`, when it is printed; at least one.

    environment: variables in addition to this process's. limit_s: the longest wait for a line, or for the end.
    Raises ProcessFailed. No process is left when the iteration ends, however it ends.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // ranks)
    inherited = {name: value for name, value in os.environ.items() if name not in OF_A_LAUNCHER}
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        launcher += ["--local-addr=127.0.0.1"]  # a machine without a network may not resolve its own name
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*launcher, "-m", module, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=inherited | {"OMP_NUM_THREADS": str(threads)} | dict(environment or {}),
        )
        printed, late = 0, threading.Event()
        try:
            for line in _lines(process, limit_s, late):
                if line.startswith("{"):
                    printed += 1
                    yield json.loads(line)
            code = process.wait()
        finally:
            _end(process)
        errors.seek(0)
        stderr = errors.read()
    if late.is_set() or code != 0 or not printed:
        why = f"no line in {limit_s:.0f} s" if late.is_set() else f"exit code {code}, {_reason(stderr)}"
        raise ProcessFailed(
            f"{module} {' '.join(arguments)} on {ranks} ranks failed: {why}", why, stderr[-4000:]
        )


def _lines(process: subprocess.Popen[str], limit_s: float | None, late: threading.Event) -> Iterator[str]:
    """Lines of the process's output. A wait of more than limit_s ends the process and sets `late`."""

    def stop() -> None:
        late.set()
        _end(process)

    assert process.stdout is not None
    while True:
        timer = threading.Timer(limit_s, stop) if limit_s is not None else None
        if timer is not None:
            timer.start()
        try:
            line = process.stdout.readline()
        finally:
            if timer is not None:
                timer.cancel()
        if not line:
            return
        yield line


def _end(process: subprocess.Popen[str]) -> None:
    """End the launcher if it still runs: it ends its ranks first."""
    process.terminate()
    try:
        process.wait(timeout=LAUNCHER_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _reason(stderr: str) -> str:
    """The last error of a rank, else the last line; torchrun adds errors of its own below them."""
    errors = [line for line in stderr.splitlines() if "Error: " in line and "torch.distributed" not in line]
    return (errors or stderr.strip().splitlines() or [""])[-1]
