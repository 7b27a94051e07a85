"""A signal stops the run: save at the next step boundary, on all ranks, and exit with code 75.

SIGTERM, SIGINT and SIGUSR1, on any one rank. A second signal ends the process at once. SIGUSR2 means that the
launcher has died; repeats of it are ignored. SIGTSTP (Ctrl-Z, and Slurm before it suspends a job) pauses the process until
SIGCONT, and that time is no hang. The ranks agree in the all-reduce that every step does anyway
(Engine.reduce), and between steps with `requested_anywhere`. No torch at import: importing torch takes seconds, and
a signal in that time must not be lost.

Until all ranks have met (`meeting`) there is nothing to save: a rank whose launcher has died ends at once, and one that
got another signal tells the others where they meet (join_world), which takes MEETING_S at most.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from unsee_dist.errors import ExitCode, ends_process

if TYPE_CHECKING:
    from unsee_dist.distributed.world import World

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ORPHANED = signal.SIGUSR2  # Linux sends it once for every thread of the dying launcher
PAUSE = signal.SIGTSTP
PR_SET_PDEATHSIG = 1
MEETING_S = 30.0  # importing torch from a busy disk takes so long
LAUNCH = "deepspeed.launcher.launch"  # a process between `deepspeed` and its ranks, which outlives it
LOOK_S = 1.0
Handler = Callable[[int, FrameType | None], object] | int | None


class Stopped(Exception):
    """All ranks have agreed to stop."""


class StopSignal:
    """Handles signals from its construction on, in the main thread. The first signal sets `requested` and `name`.

    while_paused: entered around a pause (the watchdog's).

    A thread of its own reads the signals: python runs handlers in the main thread, which may be waiting for a hung rank
    inside gloo. Constructed in another thread (a worker of a sweep trains in one) it receives no signal: the owner of the
    process stops the training.
    """

    def __init__(self) -> None:
        self.requested = False
        self.name = ""
        self.meeting = False  # the ranks of this run have not met yet
        self.while_paused: Callable[[], AbstractContextManager[None]] = nullcontext
        self._grace_s: float | None = None
        self._before: tuple[dict[signal.Signals, Handler], int] | None = None
        if threading.current_thread() is not threading.main_thread():
            return
        self._receiving, sending = socket.socketpair()
        sending.setblocking(False)
        self._sending = sending  # python writes each signal's number into it, whatever the main thread does
        handlers = {each: signal.signal(each, _ignore) for each in (*SIGNALS, ORPHANED, PAUSE)}
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

    @ends_process
    def _listen(self) -> None:
        while True:
            for number in self._receiving.recv(64):
                if number == PAUSE:
                    with (
                        self.while_paused()
                    ):  # to this thread: it does not return from the call before SIGCONT
                        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
                elif number in SIGNALS or (number == ORPHANED and not self.requested):
                    self._receive(number)

    def _receive(self, number: int) -> None:
        if self.requested:
            os._exit(128 + number)
        self.requested, self.name = True, signal.Signals(number).name
        if self.meeting:
            self._leave_meeting(number == ORPHANED)
        self._start_timer()

    @ends_process
    def _leave_meeting(self, at_once: bool) -> None:
        """End this process: nothing was trained yet. Not at once: only if the ranks have not met some time later."""
        if not at_once:
            timer = threading.Timer(MEETING_S, self._leave_meeting, (True,))
            timer.daemon = True
            timer.start()
        elif self.meeting:
            with suppress(OSError):  # nobody may read what this process says
                print(f"ended by {self.name} before all ranks had met", file=sys.stderr, flush=True)
            os._exit(ExitCode.STOPPED)

    def _start_timer(self) -> None:
        if self._grace_s is not None:
            timer = threading.Timer(self._grace_s, self._exit_without_checkpoint)
            timer.daemon = True
            timer.start()

    @ends_process
    def _exit_without_checkpoint(self) -> None:
        if self._before is None:  # closed: the run is over
            return
        sentence = (
            f"checkpoint.grace_s = {self._grace_s:g}: no checkpoint was complete this many seconds after {self.name}. "
            "The run will continue from the checkpoint before. Write a larger checkpoint.grace_s, and let the scheduler "
            "wait as long."
        )
        with suppress(OSError):  # nobody may read what this process says
            print(sentence, file=sys.stderr, flush=True)
        os._exit(ExitCode.STOPPED)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """A handler, so that python does not end the process; StopSignal's thread reads the signal."""


# What launchers set for a rank. A process that is none of their job, but inside of it, would read a wrong number from these.
OF_A_LAUNCHER = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SLURM_STEP_NUM_TASKS"}


def is_launched() -> bool:
    return "RANK" in os.environ or "SLURM_STEP_NUM_TASKS" in os.environ


def launched_as() -> tuple[int, int]:
    """Rank and ranks by what the launcher says, before torch is loaded; a wrong number is reported when they meet."""
    environment = os.environ
    rank, ranks = (
        environment.get("RANK", environment.get("SLURM_PROCID", "0")),
        environment.get("WORLD_SIZE", "1"),
    )
    if "RANK" not in environment:
        ranks = environment.get("SLURM_STEP_NUM_TASKS", "1")
        rank = rank if ranks != "1" else "0"
    return (int(rank), int(ranks)) if rank.isdecimal() and ranks.isdecimal() else (0, 1)


def stop_with_launcher(launcher: int) -> None:
    """Stop this rank when its launcher (torchrun, Slurm's slurmstepd, deepspeed) is killed: it would train on, and nothing
    would report its end. launcher: the parent of this process when it began. Linux only; elsewhere it does nothing."""
    if sys.platform != "linux" or not is_launched():
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, ORPHANED)
    if os.getppid() != launcher or _was_torchruns(launcher):  # it has died before this call
        os.kill(os.getpid(), ORPHANED)
    elif LAUNCH in _read(launcher, "cmdline"):
        threading.Thread(target=_follow, args=(launcher,), name="launcher", daemon=True).start()


def _was_torchruns(parent: int) -> bool:
    """Whether a rank that torchrun has started is process 1's now, which is an init and no torchrun in a container."""
    init = _read(1, "cmdline") if parent == 1 and "TORCHELASTIC_RUN_ID" in os.environ else ""
    return init != "" and "python" not in init and "torch" not in init


@ends_process
def _follow(launch: int) -> None:
    """Wait until the process that has started `launch` is gone: Linux gives an orphan to process 1, which may have started
    it, too, but then gives it a process group of its own, or one it shares."""
    runner, group = _parent_and_group(launch)
    left = runner == 1 and group not in (launch, _parent_and_group(1)[1])
    while not left:
        time.sleep(LOOK_S)
        left = _parent_and_group(launch)[0] != runner
    os.kill(os.getpid(), ORPHANED)


def _parent_and_group(pid: int) -> tuple[int, int]:
    """Of a process, as in proc(5); zeros when there is none."""
    _, parent, group, *_ = _read(pid, "stat").rpartition(")")[2].split() or ["", "0", "0"]
    return int(parent), int(group)


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
