"""Ends the whole job when a rank hangs or dies, and prints which rank, on which host, in which step and phase.

A thread of every rank writes the rank's `RankStatus` to the store and reads those of the others:

    no new status for timeout_s, or its process    that rank is dead, stopped, or cut off from the network
    is seen to have ended
    every rank writes, and none has entered a      the rank that has issued the fewest collectives blocks the others
    phase or issued a collective for timeout_s     (blocking.py)
    the store does not answer for timeout_s        the rank or the launcher that serves it is stopped

Beyond ALL_WATCH ranks, WATCHERS of them read the statuses of all, and the others those of the watchers: the store is asked
2 x WATCHERS x R times a period, and not R x R times.

The time in which this process did not run (Ctrl-Z, a job that Slurm has suspended, a paused machine) is no hang: after it all
durations begin anew.

Then every rank that can prints the stacks of its threads and exits with code 3. Without it, gloo would wait 10 to 30
minutes and name no rank; NCCL, whose own handling is switched off (distributed/placement.py), for ever.
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
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from types import FrameType
from typing import cast

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store

from unsee_dist.distributed import groups
from unsee_dist.distributed.world import World
from unsee_dist.errors import ExitCode, ends_process
from unsee_dist.files.process import own_process
from unsee_dist.supervision.blocking import (
    RankStatus,
    Received,
    describe_lost,
    lost_ranks,
    without_progress,
)
from unsee_dist.supervision.deadline import Deadline
from unsee_dist.supervision.phases import (
    background_groups,
    blocks_training,
    current_phase,
    register_background_thread,
)

# more time is allowed: an encoder may be downloading, or a graph of it compiled
SLOW_PHASES = ("start", "build", "compile")
ALL_WATCH, WATCHERS = 64, 16
MARGIN_S = 60.0  # for what the watchdog does itself, before a deadline that needs no lock of python's ends this process
BEATS_MISSED = 4  # after an error in a collective, this many missed statuses mean that a rank is gone


class Watchdog:
    """Watches from `start` on. One a process; `world` must have joined."""

    def __init__(self, world: World, timeout_s: float) -> None:
        self.world, self.timeout_s = world, timeout_s
        self.period_s = min(max(1.0, world.size / 100), timeout_s / 4)
        self.missed_s = BEATS_MISSED * self.period_s
        self.received: dict[int, Received] = {}
        self._watched = watched(world.rank, world.size)
        self._relay = (
            ", or the first rank of this host is, which asks it for the others" if world.by_relay else ""
        )
        self._beats, self._exit_reason = 0, cast("str | None", None)
        self._collectives, self._moved = 0, time.monotonic()  # issued, and when that number last changed
        self._process, self._frames_tell = own_process(), dist.get_backend() == "gloo"
        self._since = self._woke = time.monotonic()  # woke: this process ran again after it had not
        self._ended = threading.Event()
        self._deadline, self._deadline_lock = Deadline(ExitCode.RANK_LOST), threading.Lock()
        self._store: Store | None = None
        self._waiting: dict[int, float] = {}  # thread -> since when it waits for the store
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._store_thread = threading.Thread(
            target=self._watch_store, name="watchdog of the store", daemon=True
        )

    def start(self) -> None:
        register_background_thread(self._thread.name)
        register_background_thread(self._store_thread.name)
        groups.set_torch_timeout(groups.torch_timeout_s(self.timeout_s))
        if self.world.size > 1:
            store: Store = dist.distributed_c10d._get_default_store()
            self._store = PrefixStore("watchdog", store.clone())  # type: ignore[attr-defined]  # a connection of its own; not in torch's stubs
            self._store_thread.start()
            self._publish(self._store)
        self._thread.start()

    def announce_exit(self, reason: str) -> None:
        """Publish why this rank exits, for the ranks that wait for it. The second call does nothing."""
        if self._ended.is_set():
            return
        self._exit_reason = reason
        if self._store is not None:
            with suppress(
                dist.DistError, OSError
            ):  # the process that serves the store may have exited before
                self._publish(self._store)
        self._ended.set()
        self._deadline.cancel()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """In this block the process is about to stand still, and no deadline ends it."""
        with self._deadline_lock:
            self._deadline.cancel()
            yield

    def explain(self) -> str | None:
        """After an error in a collective: which ranks are gone, or None when all ranks still report."""
        until = time.monotonic() + 2 * self.missed_s
        self._watched = everyone_but(self.world.rank, self.world.size)
        while time.monotonic() < until and self.world.size > 1:
            received = list(self.received.values())
            lost = lost_ranks(received, self.missed_s, self.missed_s)
            lost += [one for one in received if one.status.exit_reason is not None]
            if lost:
                return describe_lost(lost, [])
            time.sleep(self.period_s / 2)
        return None

    @ends_process
    def _watch(self) -> None:
        try:
            while self._has_waited():
                self._look()
        except Exception:
            if not self._ended.is_set():  # once the run has ended, an error means nothing
                raise

    def _has_waited(self) -> bool:
        """Wait a period. False: the run has ended."""
        began = time.monotonic()
        ended = self._ended.wait(self.period_s)
        if (now := time.monotonic()) - began > self.period_s + self.missed_s:
            self._woke = now
        return not ended

    def _look(self) -> None:
        # A main thread that hangs in a call of the driver and does not release python's lock stops this thread, too: then
        # the others end, having had no status of this rank, and this process later, by a thread that needs no lock.
        with self._deadline_lock:
            self._deadline.set(2 * self.timeout_s + MARGIN_S)
        groups.set_torch_timeout(groups.torch_timeout_s(self.timeout_s))  # of groups made since
        try:
            if self._store is not None:
                self._publish(self._store)
                self._receive(self._store)
        except (dist.DistError, OSError):
            if self._ended.wait(2 * self.period_s):  # all ranks are exiting
                return
            # the store is gone, and with it rank 0, which serves it (under torchrun: the agent of the first host)
            self._fail(
                f"The ranks' store cannot be reached: rank 0 or the launcher on the first host is gone{self._relay}."
            )
        diagnosis = self._diagnose()
        if diagnosis:
            self._fail(diagnosis)

    @ends_process
    def _watch_store(self) -> None:
        """A store whose process is stopped accepts a question and does not answer: no timeout of its own ends that."""
        while self._has_waited():
            now = time.monotonic()
            waited_s = max((now - max(at, self._woke) for at in list(self._waiting.values())), default=0.0)
            if waited_s > self.timeout_s:
                first = self.received[0].status if 0 in self.received else "rank 0"
                self._fail(
                    f"The ranks' store has not answered for {waited_s:.0f} s (guard.timeout_s = {self.timeout_s:g}): "
                    f"{first}, or the launcher on the first host, which serves it, is stopped, or the network to "
                    f"it is down{self._relay}.",
                    store_answers=False,
                )

    def _diagnose(self) -> str | None:
        received = [replace(one, at=max(one.at, self._woke)) for one in self.received.values()]
        lost = lost_ranks(received, self.timeout_s, self.missed_s)
        if lost:
            return describe_lost(lost, [one for one in received if one not in lost])
        absent = set(self._watched) - {one.status.rank for one in received}
        if absent and time.monotonic() - max(self._since, self._woke) > self.timeout_s:
            return f"No status has ever come from rank {', '.join(map(str, sorted(absent)))}: it has died or is stopped."
        if len(self._watched) < self.world.size - 1:
            return None  # who blocks whom is known to those that know all
        own = self._status()
        slow = own.phase in SLOW_PHASES
        if slow and self.world.size == 1:
            return None
        limit_s = groups.slow_timeout_s(self.timeout_s) if slow else self.timeout_s
        shortest_s = min([own.idle_s, *(one.idle_s() for one in received)])
        # where another rank makes progress this is a long phase of ours, not a hang
        if own.idle_s <= limit_s or shortest_s <= limit_s * 0.9:
            return None
        exited = [one for one in received if one.status.exit_reason is not None]
        if exited:
            return describe_lost(exited, [one for one in received if one not in exited])
        statuses = {one.status.rank: one.status for one in received} | {own.rank: own}
        return without_progress(statuses, shortest_s, self.timeout_s)

    def _status(self) -> RankStatus:
        current = current_phase()
        issued = groups.collectives_issued(self.world.size, background_groups())
        if issued != self._collectives:
            self._collectives, self._moved = issued, time.monotonic()
        awaited = [
            groups.issued(cast("dist.ProcessGroup", group)) for group in background_groups(awaited=True)
        ]
        return RankStatus(
            rank=self.world.rank,
            host=socket.gethostname(),
            step=current.step,
            phase=current.phase,
            idle_s=time.monotonic() - max(current.since, self._moved, self._woke),
            collectives=issued,
            awaited=sum(awaited) if awaited else -1,
            outside=not _in_a_collective() if self._frames_tell else None,
            process=self._process,
            beat=self._beats,
            exit_reason=self._exit_reason,
        )

    def _publish(self, store: Store) -> None:
        self._beats += 1
        with self._waits_for_store():
            store.set(str(self.world.rank), json.dumps(asdict(self._status())))

    def _receive(self, store: Store) -> None:
        others = self._watched
        with self._waits_for_store():
            present = [rank for rank in others if rank in self.received or store.check([str(rank)])]
            values = store.multi_get([str(rank) for rank in present]) if present else []
            diagnosis = store.get("diagnosis").decode() if store.check(["diagnosis"]) else None
        for rank, value in zip(present, values, strict=True):
            status = RankStatus.from_dict(json.loads(value))
            if rank not in self.received or self.received[rank].status.beat != status.beat:
                self.received[rank] = Received(status, time.monotonic())
        if diagnosis is not None:
            self._fail(diagnosis)

    @contextmanager
    def _waits_for_store(self) -> Iterator[None]:
        thread = threading.get_ident()
        self._waiting[thread] = time.monotonic()
        try:
            yield
        finally:
            del self._waiting[thread]

    def _fail(self, diagnosis: str, store_answers: bool = True) -> None:
        """Every rank prints its stacks; the first one to fail also prints the diagnosis. store_answers: it can be given to the
        others."""
        first = True
        with suppress(dist.DistError, OSError):
            if store_answers and self._store is not None:
                with self._waits_for_store():
                    first = self._store.add("diagnosing", 1) == 1
                    if first:
                        self._store.set("diagnosis", diagnosis)
        if first:
            print(diagnosis, file=sys.stderr, flush=True)
        print(f"rank {self.world.rank} was in {current_phase()}; its threads:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        if self.world.rank == 0:
            time.sleep(2 * self.period_s)  # it may serve the store: the others read the diagnosis first
        os._exit(ExitCode.RANK_LOST)


def watched(rank: int, size: int) -> list[int]:
    """The ranks whose statuses this rank reads."""
    watchers = range(0, size, -(-size // WATCHERS))
    if size <= ALL_WATCH or rank in watchers:
        return everyone_but(rank, size)
    return list(watchers)


def everyone_but(rank: int, size: int) -> list[int]:
    return [other for other in range(size) if other != rank]


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
