"""A signal stops the run: save at the next step boundary, on all ranks, and exit with code 75.

SIGTERM, SIGINT and SIGUSR1, on any one rank. A second signal ends the process at once. SIGUSR2 means that the
launcher has died; repeats of it are ignored. The ranks agree in the all-reduce that every step does anyway
(Engine.reduce), and between steps with `requested_anywhere`. No torch at import: importing torch takes seconds, and
a signal in that time must not be lost.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from unsee_dist.errors import ExitCode

if TYPE_CHECKING:
    from unsee_dist.distributed.world import World

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ORPHANED = signal.SIGUSR2  # Linux sends it once for every thread of the dying launcher
PR_SET_PDEATHSIG = 1
Handler = Callable[[int, FrameType | None], object] | int | None


class Stopped(Exception):
    """All ranks have agreed to stop."""


class StopSignal:
    """Handles signals from its construction on, in the main thread. The first signal sets `requested` and `name`.

    A thread of its own reads the signals: python runs handlers in the main thread, which may be waiting for a hung rank
    inside gloo. Constructed in another thread (a worker of a sweep trains in one) it receives no signal: the owner of the
    process stops the training.
    """

    def __init__(self) -> None:
        self.requested = False
        self.name = ""
        self._grace_s: float | None = None
        self._before: tuple[dict[signal.Signals, Handler], int] | None = None
        if threading.current_thread() is not threading.main_thread():
            return
        self._receiving, sending = socket.socketpair()
        sending.setblocking(False)
        self._sending = sending  # python writes each signal's number into it, whatever the main thread does
        handlers = {each: signal.signal(each, _ignore) for each in (*SIGNALS, ORPHANED)}
        self._before = handlers, signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def close(self) -> None:
        """Restore the handlers from before: a program may train in its own process and continue afterwards."""
        if self._before is not None:
            handlers, wakeup = self._before
            signal.set_wakeup_fd(wakeup)
            for each, handler in handlers.items():
                signal.signal(each, handler)
            self._before = None

    def set_grace(self, grace_s: float) -> None:
        """From now on the process exits when a stop takes longer than `grace_s` seconds."""
        self._grace_s = grace_s
        if self.requested:
            self._start_timer()

    def requested_anywhere(self, world: World) -> bool:
        """Whether any rank received a signal. Collective."""
        if world.size == 1:
            return self.requested
        import torch
        import torch.distributed as dist

        flag = torch.tensor(float(self.requested), device=world.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)

    def _listen(self) -> None:
        while True:
            for number in self._receiving.recv(64):
                if number in SIGNALS or (number == ORPHANED and not self.requested):
                    self._receive(number)

    def _receive(self, number: int) -> None:
        if self.requested:
            os._exit(128 + number)
        self.requested, self.name = True, signal.Signals(number).name
        self._start_timer()

    def _start_timer(self) -> None:
        if self._grace_s is not None:
            timer = threading.Timer(self._grace_s, self._exit_without_checkpoint)
            timer.daemon = True
            timer.start()

    def _exit_without_checkpoint(self) -> None:
        if self._before is None:  # closed: the run is over
            return
        print(
            f"checkpoint.grace_s = {self._grace_s:g}: no checkpoint was complete this many seconds after {self.name}. "
            "The run will continue from the checkpoint before. Write a larger checkpoint.grace_s, and let the scheduler "
            "wait as long.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(ExitCode.STOPPED)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """A handler, so that python does not end the process; StopSignal's thread reads the signal."""


def stop_with_launcher() -> None:
    """Stop this rank when its launcher (torchrun, Slurm's slurmstepd) is killed: it would train on, and nothing would
    report its end. Linux only; elsewhere it does nothing."""
    launched = "RANK" in os.environ or "SLURM_STEP_NUM_TASKS" in os.environ
    if sys.platform == "linux" and launched:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, ORPHANED)
