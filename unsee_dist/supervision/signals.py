"""A signal asks the run to stop: save at the next step boundary, on all ranks, and leave with code 75.

SIGTERM, SIGINT and SIGUSR1, on any one rank. A second signal ends the process at once. SIGUSR2 says that the launcher
has died; it asks once, however often it comes. Ranks agree in the all-reduce that every step has anyway
(engine.finish), and at the pauses by `agreed`. No torch at import: a rank listens before that takes its seconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from unsee_dist.errors import ExitCode

if TYPE_CHECKING:
    from unsee_dist.distributed.world import World

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ORPHANED = signal.SIGUSR2  # Linux sends it once for every thread of the dying launcher
PR_SET_PDEATHSIG = 1


class Stopped(Exception):
    """All ranks have agreed to stop."""


class StopSignal:
    """Listens from its making, in the main thread. `asked` is set by the first signal; `name` is that signal's.

    A thread listens: python runs handlers in the main thread, and that may wait for a hung rank inside gloo. Made in
    another thread (a worker of a sweep trains in one) it hears nothing: whoever owns the process stops it.
    """

    def __init__(self) -> None:
        self.asked = False
        self.name = ""
        self._grace_s: float | None = None
        self._before: tuple[dict[signal.Signals, Any], int] | None = None
        if threading.current_thread() is not threading.main_thread():
            return
        self._heard, told = socket.socketpair()
        told.setblocking(False)
        self._told = told  # python writes each signal's number into it, whatever the main thread does
        handlers = {each: signal.signal(each, _leave_to_the_thread) for each in (*SIGNALS, ORPHANED)}
        self._before = handlers, signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def close(self) -> None:
        """Give the signals back to whoever had them: a program that trains in its own process goes on afterwards."""
        if self._before is not None:
            handlers, wakeup = self._before
            signal.set_wakeup_fd(wakeup)
            for each, handler in handlers.items():
                signal.signal(each, handler)
            self._before = None

    def limit(self, grace_s: float) -> None:
        """From here on a stop that takes longer than `grace_s` seconds is cut off."""
        self._grace_s = grace_s
        if self.asked:
            self._cut_off_later()

    def agreed(self, world: World) -> bool:
        """Was any rank asked to stop? Collective."""
        if world.size == 1:
            return self.asked
        import torch
        import torch.distributed as dist

        flag = torch.tensor(float(self.asked), device=world.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)

    def _listen(self) -> None:
        while True:
            for number in self._heard.recv(64):
                if number in SIGNALS or (number == ORPHANED and not self.asked):
                    self._receive(number)

    def _receive(self, number: int) -> None:
        if self.asked:
            os._exit(128 + number)
        self.asked, self.name = True, signal.Signals(number).name
        self._cut_off_later()

    def _cut_off_later(self) -> None:
        if self._grace_s is not None:
            timer = threading.Timer(self._grace_s, self._cut_off)
            timer.daemon = True
            timer.start()

    def _cut_off(self) -> None:
        if self._before is None:  # closed: the run is over
            return
        print(
            f"checkpoint.grace_s = {self._grace_s:g}: no checkpoint was complete that long after {self.name}. "
            "The run continues from the one before; allow more time, and ask the scheduler for it.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(ExitCode.STOPPED)


def _leave_to_the_thread(_number: int, _frame: FrameType | None) -> None:
    """Keeps python from ending the process; StopSignal has been told already."""


def stop_with_launcher() -> None:
    """A launcher that is killed (torchrun, Slurm's slurmstepd) makes its ranks stop: they would train on, and nobody
    would hear of their end. Linux only; elsewhere a no-op."""
    launched = "RANK" in os.environ or "SLURM_STEP_NUM_TASKS" in os.environ
    if sys.platform == "linux" and launched:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, ORPHANED)
