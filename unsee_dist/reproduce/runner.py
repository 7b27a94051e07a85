"""Each unit is trained, or continued, by the ordinary `unsee train` in a process of its own, and a peer's by train_peer.py; one
after another here, side by side on a Ray cluster, peers when the runs are there that say how long they may take. What a process prints is in the unit's log.

A run that breaks after its first step (a loss that is not finite) is a result, and the others go on. A mistake before it
is one which the others would repeat: it ends the experiment with its sentence. So does all that is not a result, at any step,
with its own exit code: a bug, a fault that passes, a process that was killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from unsee_dist.errors import ExitCode, ended, writing
from unsee_dist.evaluation.tasks import EvaluationRequest
from unsee_dist.report.run_files import is_run, open_run
from unsee_dist.reproduce.scoring import score_run
from unsee_dist.reproduce.units import Unit
from unsee_dist.supervision.signals import OF_A_LAUNCHER, Stopped, StopSignal
from unsee_dist.tracking.bars import counting
from unsee_dist.training.checkpoint.directory import CHECKPOINTS, folders, remove

LOOK_S = 0.5  # whether a signal has come
CPUS = 2  # of a unit on a cluster: its training, and the threads of its arithmetic
SAID_BYTES = 4096  # of a log's end


class RemoteUnit(NamedTuple):
    """A unit for a worker. cwd: of the command, to which its paths are relative."""

    unit: Unit
    tasks: EvaluationRequest
    cwd: str
    gpus: float


def run_here(units: Sequence[Unit], tasks: EvaluationRequest, console: Console, stop: StopSignal) -> None:
    """Train and score the units. Raises Stopped after a signal: the unit under way has a checkpoint."""
    left = [unit for unit in units if not unit.complete]
    with counting(console, len(left), "runs") as begin:
        for unit in left:
            begin(unit.name)
            train(unit, stop)
            drop_checkpoints(unit)
            score_run(unit, tasks)


def run_on_ray(units: Sequence[Unit], tasks: EvaluationRequest, console: Console) -> None:
    """The same on the cluster of RAY_ADDRESS, else on this machine's cores; each unit has a GPU where there are any."""
    left = [unit for unit in units if not unit.complete]
    if not left:
        return
    from unsee_dist.ray_pool.cluster import connected, nodes
    from unsee_dist.ray_pool.tasks import map_unordered

    with connected():
        machines = nodes()
        gpus = float(any(node.gpus for node in machines))
        cpus = min(CPUS, max(node.cpus for node in machines))
        done = 0
        for part in ([unit for unit in left if not unit.timed_by], [unit for unit in left if unit.timed_by]):
            remote = [RemoteUnit(unit, tasks, os.getcwd(), gpus) for unit in part]
            for index, _ in map_unordered(run_remote, remote, cpus=cpus, gpus=gpus):
                done += 1
                console.print(f"{done}/{len(left)} {part[index].name}", style="dim")


def run_remote(remote: RemoteUnit) -> None:
    """One unit, on a worker, whose death ends the training with a checkpoint."""
    with contextlib.chdir(remote.cwd):
        train(remote.unit, None)
        drop_checkpoints(remote.unit)
        score_run(remote.unit, remote.tasks)


def train(unit: Unit, stop: StopSignal | None) -> None:
    """Run a unit's training to its end. Raises Stopped; what its exit code says, unless it broke after its first step."""
    code = run_logged([sys.executable, "-m", *unit.command], unit.log, stop)
    if code == ExitCode.COMPLETE:
        return
    if code == ExitCode.STOPPED:
        raise Stopped
    begun = is_run(unit.folder) and open_run(unit.folder).step > 0
    if not begun or code != ExitCode.MISTAKE:
        when = "" if begun else " before its first step,"
        raise ended(f"{unit.name} ended{when} with exit code {code}: {said(unit)}", code)


def drop_checkpoints(unit: Unit) -> None:
    """Of a complete run: best/ and final/ are what is scored, and the states of a hundred runs fill a disk."""
    if unit.complete:
        for checkpoint in folders(unit.folder / CHECKPOINTS):
            remove(checkpoint)


def run_logged(command: Sequence[str], log: Path, stop: StopSignal | None) -> int:
    """The exit code of a command. What it prints is added to the log. Signals are passed on: Ctrl-C and Ctrl-Z of a terminal
    reach this process alone, since a training that gets two stops at once writes no checkpoint."""
    with writing(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        file = log.open("ab")
    with file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=_environment(), process_group=0)
    if stop is not None:
        stop.while_paused = partial(_paused, process)
    return _wait(process, lambda: stop is not None and stop.requested)


@contextlib.contextmanager
def _paused(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """In this block this process is about to stand still, and so is that one."""
    process.send_signal(signal.SIGTSTP)
    yield
    process.send_signal(signal.SIGCONT)


def said(unit: Unit) -> str:
    """The last line of a unit's log, and where the others are."""
    data = unit.log.read_bytes()[-SAID_BYTES:] if unit.log.exists() else b""
    lines = [line for line in data.decode(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1] if lines else 'it said nothing.'} Its output: {unit.log}"


def _wait(process: subprocess.Popen[bytes], stopped: Callable[[], bool]) -> int:
    """Its exit code; a signal is passed on once, and it is gone when this ends, however it ends."""
    announced = False
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=LOOK_S)
            if stopped() and not announced:
                process.terminate()
                announced = True
    finally:
        if process.poll() is None:
            process.terminate()


def _environment() -> dict[str, str]:
    """This process's, as a launcher of one rank has it: the training then ends, with a checkpoint, when this process dies."""
    inherited = {name: value for name, value in os.environ.items() if name not in OF_A_LAUNCHER}
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    return inherited | {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "PYTHONPATH": path}
