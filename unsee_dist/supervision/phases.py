"""Where this process stands: the step and phase its main thread is in.

The watchdog names it when a rank hangs, and the kill tests aim at it:
UNSEE_KILL_AT="PHASE STEP RANK [SIGNAL]" ends the process there (SIGKILL), as a power cut would.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

KILL_AT = "UNSEE_KILL_AT"


@dataclass
class Phase:
    """`since`: time.monotonic() of the last move; `at`: time.time() of it, comparable between hosts."""

    step: int = 0
    phase: str = "start"
    since: float = 0.0
    at: float = 0.0

    def __str__(self) -> str:
        return f"step {self.step}, {self.phase}"


# Of the process: it has one main thread, and whoever looks (watchdog, bench, kill tests) looks at that one.
_phase = Phase(since=time.monotonic(), at=time.time())
_observers: list[Callable[[str, int], None]] = []


def enter_phase(phase: str, step: int | None = None) -> None:
    """The main thread enters a phase, of a new step when one is given."""
    if step is not None:
        _phase.step = step
    _phase.phase, _phase.since, _phase.at = phase, time.monotonic(), time.time()
    for observer in _observers:
        observer(phase, _phase.step)
    failpoint(phase, _phase.step)


@contextmanager
def observing(observer: Callable[[str, int], None]) -> Iterator[None]:
    """Call observer(phase, step) whenever the main thread enters a phase: how the bench times the real step."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


_background: set[str] = set()  # names of threads that do not train
_awaited: set[str] = set()  # those of them that the main thread waits for


def works_in_background(thread: str) -> None:
    """A thread of this name does not train: that it waits in a collective is no sign that this rank waits for others."""
    _background.add(thread)


@contextmanager
def waiting_for(thread: str) -> Iterator[None]:
    """The main thread waits for this thread in the background: where that one stands, this rank stands."""
    _awaited.add(thread)
    try:
        yield
    finally:
        _awaited.discard(thread)


def trains(thread: str | None) -> bool:
    """Does it hold up this rank when the thread of this name stands still?"""
    return thread not in _background or thread in _awaited


def current_phase() -> Phase:
    return _phase


def failpoint(phase: str, step: int) -> None:
    """A point where tests may end this process; other threads call it directly."""
    wanted = os.environ.get(KILL_AT)
    if wanted is None:
        return
    at, when, rank, *name = wanted.split()
    if (at, int(when), rank) == (phase, step, os.environ.get("RANK", "0")):
        del os.environ[KILL_AT]  # once
        os.kill(os.getpid(), getattr(signal, name[0] if name else "SIGKILL"))
