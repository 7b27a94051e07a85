"""Ends the whole job when a rank hangs or dies, and prints which rank, on which host, in which step and phase.

A thread of every rank writes the rank's `Status` to the store and reads those of the others:

    no new status for timeout_s                  that rank is dead, stopped, or cut off from the network
    every rank writes, and none has entered      the rank that is in no collective (else the one in the earliest step,
    a phase for timeout_s                        and there the longest) blocks the others, which wait for it in one

Then every rank that can prints the stacks of its threads and exits with code 3. Without it, gloo and nccl
wait 10 to 30 minutes and name no rank.
"""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import FrameType

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store

from unsee_dist.distributed.world import World
from unsee_dist.errors import ExitCode
from unsee_dist.supervision.phases import blocks_training, current_phase, register_background_thread

SLOW_PHASES = ("start", "build")  # an encoder may be downloading: here only a missing status counts
BEATS_MISSED = 4  # after an error in a collective, this many missed statuses mean that a rank is gone


@dataclass(frozen=True)
class Status:
    """What a rank reports of itself. entered_at: time.time() when its main thread entered the phase.

    in_collective: a thread that trains is inside torch.distributed. exit_reason: set by a rank that exits.
    """

    rank: int
    host: str
    step: int
    phase: str
    seconds_in_phase: float
    entered_at: float
    in_collective: bool
    beat: int = 0
    exit_reason: str | None = None

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} (step {self.step}, {self.phase})"


@dataclass(frozen=True)
class Received:
    """The last status of another rank. `at`: our own clock when it arrived, so hosts' clocks need not agree."""

    status: Status
    at: float

    def age(self) -> float:
        return time.monotonic() - self.at


class Watchdog:
    """Watches from `start` on. One a process; `world` must have joined."""

    def __init__(self, world: World, timeout_s: float) -> None:
        self.world, self.timeout_s = world, timeout_s
        self.period_s = min(max(1.0, world.size / 100), timeout_s / 4)
        self.received: dict[int, Received] = {}
        self._beats = 0
        self._ended = threading.Event()
        self._store: Store | None = None
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        register_background_thread(self._thread.name)
        if self.world.size > 1:
            store: Store = dist.distributed_c10d._get_default_store()
            self._store = PrefixStore("watchdog", store.clone())  # type: ignore[attr-defined]  # a connection of its own; not in torch's stubs
            self._publish(self._store)
        self._thread.start()

    def announce_exit(self, reason: str) -> None:
        """Publish why this rank exits, for the ranks that wait for it. The second call does nothing."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._store is not None:
            with suppress(RuntimeError, OSError):  # the process that serves the store may have exited before
                self._publish(self._store, reason)

    def explain(self) -> str | None:
        """After an error in a collective: which ranks are gone, or None when all ranks still report."""
        until = time.monotonic() + 2 * BEATS_MISSED * self.period_s
        while time.monotonic() < until and self.world.size > 1:
            lost = [
                received
                for received in list(self.received.values())
                if received.status.exit_reason is not None or received.age() > BEATS_MISSED * self.period_s
            ]
            if lost:
                return _describe_lost(lost, [])
            time.sleep(self.period_s / 2)
        return None

    def _watch(self) -> None:
        while not self._ended.wait(self.period_s):
            try:
                if self._store is not None:
                    self._publish(self._store)
                    self._receive(self._store)
            except (RuntimeError, OSError):
                if self._ended.wait(2 * self.period_s):  # all ranks are exiting
                    return
                # the store is gone, and with it rank 0, which serves it (under torchrun: the agent of the first host)
                self._fail(
                    "The ranks' store cannot be reached: rank 0 or the launcher on the first host is gone."
                )
            diagnosis = self._diagnose()
            if diagnosis:
                self._fail(diagnosis)

    def _diagnose(self) -> str | None:
        silent = [
            received
            for received in self.received.values()
            if received.age() > self.timeout_s and received.status.exit_reason is None
        ]
        if silent:
            return _describe_lost(silent, [r for r in self.received.values() if r not in silent])
        own = self._status()
        if own.seconds_in_phase <= self.timeout_s or own.phase in SLOW_PHASES:
            return None
        statuses = {rank: received.status for rank, received in self.received.items()} | {
            self.world.rank: own
        }
        shortest = min(status.seconds_in_phase for status in statuses.values())
        if shortest <= self.timeout_s * 0.9:  # another rank makes progress: a long phase of ours, not a hang
            return None
        slowest = min(statuses.values(), key=_blocking_order)
        others = [str(status) for rank, status in sorted(statuses.items()) if rank != slowest.rank]
        return (
            f"{slowest} has made no progress for {slowest.seconds_in_phase:.0f} s "
            f"(guard.timeout_s = {self.timeout_s:g}). Waiting for it: {'; '.join(others) or 'no other rank'}."
        )

    def _status(self, exit_reason: str | None = None) -> Status:
        current = current_phase()
        return Status(
            rank=self.world.rank,
            host=socket.gethostname(),
            step=current.step,
            phase=current.phase,
            seconds_in_phase=time.monotonic() - current.since,
            entered_at=current.at,
            in_collective=_in_a_collective(),
            beat=self._beats,
            exit_reason=exit_reason,
        )

    def _publish(self, store: Store, exit_reason: str | None = None) -> None:
        self._beats += 1
        store.set(str(self.world.rank), json.dumps(asdict(self._status(exit_reason))))

    def _receive(self, store: Store) -> None:
        others = [rank for rank in range(self.world.size) if rank != self.world.rank]
        present = [rank for rank in others if rank in self.received or store.check([str(rank)])]
        values = store.multi_get([str(rank) for rank in present]) if present else []
        for rank, value in zip(present, values, strict=True):
            status = Status(**json.loads(value))
            if rank not in self.received or self.received[rank].status.beat != status.beat:
                self.received[rank] = Received(status, time.monotonic())
        if store.check(["diagnosis"]):
            self._fail(store.get("diagnosis").decode())

    def _fail(self, diagnosis: str) -> None:
        """Every rank prints its stacks; the first one to fail also prints the diagnosis."""
        try:
            first = self._store is None or self._store.add("diagnosing", 1) == 1
            if first and self._store is not None:
                self._store.set("diagnosis", diagnosis)
        except (RuntimeError, OSError):
            first = True
        if first:
            print(diagnosis, file=sys.stderr, flush=True)
        print(f"rank {self.world.rank} was in {current_phase()}; its threads:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        if self.world.rank == 0:
            time.sleep(2 * self.period_s)  # it may serve the store: the others read the diagnosis first
        os._exit(ExitCode.RANK_LOST)


def _blocking_order(status: Status) -> tuple[bool, int, float]:
    """Smallest for the rank that blocks the others: in no collective, in the earliest step, for the longest time."""
    return status.in_collective, status.step, status.entered_at


def _in_a_collective() -> bool:
    """Whether a thread that trains is inside torch.distributed. Background threads (phases.py) do not count: they may
    wait for ranks that arrive in time."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return any(
        "torch/distributed/" in file
        for thread, frame in sys._current_frames().items()
        if blocks_training(names.get(thread))
        for file in _files(frame)
    )


def _files(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        yield frame.f_code.co_filename.replace(os.sep, "/")
        frame = frame.f_back


def _describe_lost(lost: list[Received], waiting: list[Received]) -> str:
    names = "; ".join(
        f"{received.status} has sent no status for {received.age():.0f} s"
        if received.status.exit_reason is None
        else f"{received.status}: {received.status.exit_reason}"
        for received in lost
    )
    silent = any(received.status.exit_reason is None for received in lost)
    why = " It has died, is stopped, or its network is down." if silent else ""
    others = f" Waiting for it: {'; '.join(str(received.status) for received in waiting)}." if waiting else ""
    return f"{names}.{why}{others}"
