"""The step and phase that the main thread of this process is in.

The watchdog prints it when a rank hangs. The kill tests end the process at a phase:
UNSEE_KILL_AT="PHASE STEP RANK [SIGNAL]" sends the signal (SIGKILL) there, like a power cut.
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
    """`since`: time.monotonic() when the phase was entered."""

    step: int = 0
    phase: str = "start"
    since: float = 0.0

    def __str__(self) -> str:
        return f"step {self.step}, {self.phase}"


# One for the process: the watchdog, the bench and the kill tests all ask about the main thread.
_phase = Phase(since=time.monotonic())
_observers: list[Callable[[str, int], None]] = []


def enter_phase(phase: str, step: int | None = None) -> None:
    """The main thread enters a phase, of a new step when one is given."""
    if step is not None:
        _phase.step = step
    _phase.phase, _phase.since = phase, time.monotonic()
    for observer in _observers:
        observer(phase, _phase.step)
    failpoint(phase, _phase.step)


@contextmanager
def inside_phase(phase: str) -> Iterator[None]:
    """In this block the main thread is in another phase; then in the one it was in."""
    before = _phase.phase
    enter_phase(phase)
    try:
        yield
    finally:
        enter_phase(before)


@contextmanager
def observing(observer: Callable[[str, int], None]) -> Iterator[None]:
    """Call observer(phase, step) whenever the main thread enters a phase: how the bench times the real step."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


_background: dict[str, object] = {}  # name of a thread that does not train -> its process group, or None
_awaited: set[str] = set()  # the background threads that the main thread waits for


def register_background_thread(thread: str, group: object = None) -> None:
    """A thread of this name does not train. If it waits in a collective, this rank does not wait for other ranks.

    group: the process group of its collectives, which are not counted as training's.
    """
    _background[thread] = group


def background_groups(awaited: bool = False) -> list[object]:
    """The process groups of all background threads, or of those that the main thread waits for."""
    return [
        group
        for thread, group in _background.items()
        if group is not None and (thread in _awaited or not awaited)
    ]


@contextmanager
def waiting_for(thread: str) -> Iterator[None]:
    """The main thread waits for this background thread: if that thread hangs, this rank hangs."""
    _awaited.add(thread)
    try:
        yield
    finally:
        _awaited.discard(thread)


def blocks_training(thread: str | None) -> bool:
    """Whether this rank makes no progress while the thread of this name makes none."""
    return thread not in _background or thread in _awaited


def current_phase() -> Phase:
    return _phase


def failpoint(phase: str, step: int) -> None:
    """A point where tests may end this process; other threads call it directly."""
    wanted = os.environ.get(KILL_AT)
    if wanted is None:
        return
    wanted_phase, wanted_step, rank, *name = wanted.split()
    if (wanted_phase, int(wanted_step), rank) == (phase, step, os.environ.get("RANK", "0")):
        del os.environ[KILL_AT]  # once
        os.kill(os.getpid(), getattr(signal, name[0] if name else "SIGKILL"))
