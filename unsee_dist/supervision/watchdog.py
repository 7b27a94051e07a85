"""A rank that hangs or dies ends the whole job, with its number, its host, and where it stood.

A thread of every rank tells the store "rank, host, step, phase, beat" and reads what the others tell:

    no new beat for timeout_s                    that rank is dead, stopped, or cut off
    all beat, and no rank has moved for          the one that is in no collective (else the one in the earliest step,
    timeout_s                                    and there the longest) holds up the others, who wait for it in one

Then every rank that can prints the stacks of its threads and leaves with code 3. Without it, gloo and nccl
wait 10 to 30 minutes and name nobody.
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
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore

from unsee_dist.distributed.world import World
from unsee_dist.errors import ExitCode
from unsee_dist.supervision.phases import current_phase, trains, works_in_background

PATIENT = ("start", "build")  # an encoder may be downloading: there only silence counts
BEATS_MISSED = 4  # after an error in a collective, this many missed beats mean that a rank is gone


@dataclass
class Heard:
    """The last word of a rank. `at`: our clock when it came, so hosts' clocks need not agree."""

    word: dict[str, Any]
    at: float

    def __str__(self) -> str:
        return f"rank {self.word['rank']} on {self.word['host']} (step {self.word['step']}, {self.word['phase']})"


class Watchdog:
    """Watches from `start` on. One a process; `world` must have joined."""

    def __init__(self, world: World, timeout_s: float) -> None:
        self.world, self.timeout_s = world, timeout_s
        self.period_s = min(max(1.0, world.size / 100), timeout_s / 4)
        self.heard: dict[int, Heard] = {}
        self._beats = 0
        self._ended = threading.Event()
        self._store: Any = None
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        works_in_background(self._thread.name)
        if self.world.size > 1:
            store: Any = dist.distributed_c10d._get_default_store()
            self._store = PrefixStore("watchdog", store.clone())  # a connection of its own
            self._tell()
        self._thread.start()

    def leave(self, why: str) -> None:
        """This rank ends, and says why to those who will miss it. The second call does nothing."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._store is not None:
            with suppress(RuntimeError, OSError):  # who keeps the store may have left before
                self._tell(why)

    def explain(self) -> str | None:
        """After an error in a collective: who is gone, or None when all ranks still beat."""
        until = time.monotonic() + 2 * BEATS_MISSED * self.period_s
        while time.monotonic() < until and self.world.size > 1:
            lost = [
                h
                for h in list(self.heard.values())
                if "left" in h.word or self._silence(h) > BEATS_MISSED * self.period_s
            ]
            if lost:
                return _sentence(lost, [])
            time.sleep(self.period_s / 2)
        return None

    def _watch(self) -> None:
        while not self._ended.wait(self.period_s):
            try:
                if self._store is not None:
                    self._tell()
                    self._listen()
            except (RuntimeError, OSError):
                if self._ended.wait(2 * self.period_s):  # all are leaving
                    return
                # the store is gone, and with it rank 0, who keeps it (under torchrun: the agent of the first host)
                self._fail(
                    "The ranks' store cannot be reached: rank 0 or the launcher on the first host is gone."
                )
            verdict = self._verdict()
            if verdict:
                self._fail(verdict)

    def _verdict(self) -> str | None:
        silent = [
            h for h in self.heard.values() if self._silence(h) > self.timeout_s and "left" not in h.word
        ]
        if silent:
            return _sentence(silent, [h for h in self.heard.values() if h not in silent])
        if self._still() <= self.timeout_s or current_phase().phase in PATIENT:
            return None
        ages = {r: h.word["still_s"] for r, h in self.heard.items()} | {self.world.rank: self._still()}
        if min(ages.values()) <= self.timeout_s * 0.9:  # somebody moves: a long phase of ours, no hang of all
            return None
        everyone = self.heard | {self.world.rank: Heard(self._word(), time.monotonic())}
        slowest = min(everyone, key=lambda rank: _order(everyone[rank].word))
        others = [h for rank, h in sorted(everyone.items()) if rank != slowest]
        return (
            f"{everyone[slowest]} has not moved for {ages[slowest]:.0f} s (guard.timeout_s = {self.timeout_s:g}). "
            f"Waiting for it: {'; '.join(map(str, others)) or 'nobody'}."
        )

    def _silence(self, heard: Heard) -> float:
        return time.monotonic() - heard.at

    def _still(self) -> float:
        return time.monotonic() - current_phase().since

    def _word(self) -> dict[str, Any]:
        place = current_phase()
        return {
            "rank": self.world.rank,
            "host": socket.gethostname(),
            "step": place.step,
            "phase": place.phase,
            "still_s": self._still(),
            "moved_at": place.at,
            "waits": _in_a_collective(),
        }

    def _tell(self, left: str | None = None) -> None:
        self._beats += 1
        word = self._word() | {"beat": self._beats} | ({} if left is None else {"left": left})
        self._store.set(str(self.world.rank), json.dumps(word))

    def _listen(self) -> None:
        others = [rank for rank in range(self.world.size) if rank != self.world.rank]
        known = [rank for rank in others if rank in self.heard or self._store.check([str(rank)])]
        words = self._store.multi_get([str(rank) for rank in known]) if known else []
        for rank, word in zip(known, map(json.loads, words), strict=True):
            if rank not in self.heard or self.heard[rank].word["beat"] != word["beat"]:
                self.heard[rank] = Heard(word, time.monotonic())
        if self._store.check(["verdict"]):
            self._fail(self._store.get("verdict").decode())

    def _fail(self, verdict: str) -> None:
        """Every rank prints its stacks; the first to see it says why."""
        try:
            first = self._store is None or self._store.add("judges", 1) == 1
            if first and self._store is not None:
                self._store.set("verdict", verdict)
        except (RuntimeError, OSError):
            first = True
        if first:
            print(verdict, file=sys.stderr, flush=True)
        print(f"rank {self.world.rank} stood at {current_phase()}; its threads:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        if self.world.rank == 0:
            time.sleep(2 * self.period_s)  # it may keep the store: the others read the verdict first
        os._exit(ExitCode.RANK_LOST)


def _order(word: dict[str, Any]) -> tuple[bool, int, float]:
    """Smallest for the rank that holds up the others: not waiting in a collective, in the earliest step, the longest."""
    return word["waits"], word["step"], word["moved_at"]


def _in_a_collective() -> bool:
    """Does a thread that trains stand in torch.distributed? Others register themselves (phases.py): one in the background
    may wait for ranks that come in time."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return any(
        "torch/distributed/" in file
        for thread, frame in sys._current_frames().items()
        if trains(names.get(thread))
        for file in _files(frame)
    )


def _files(frame: Any) -> Iterator[str]:
    while frame is not None:
        yield frame.f_code.co_filename.replace(os.sep, "/")
        frame = frame.f_back


def _sentence(lost: list[Heard], waiting: list[Heard]) -> str:
    names = "; ".join(
        f"{h}: {h.word['left']}"
        if "left" in h.word
        else f"{h} was last heard of {time.monotonic() - h.at:.0f} s ago"
        for h in lost
    )
    silent = any("left" not in h.word for h in lost)
    why = " It has died, is stopped, or its network is down." if silent else ""
    others = f" Waiting for it: {'; '.join(map(str, waiting))}." if waiting else ""
    return f"{names}.{why}{others}"
