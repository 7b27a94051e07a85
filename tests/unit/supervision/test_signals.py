"""A stop is heard once from a dying launcher, twice from a person; no torch is needed to listen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from unsee_dist.supervision.signals import StopSignal

RANK = """
import os, sys, time
from unsee_dist.supervision.signals import StopSignal, stop_with_launcher
assert "torch" not in sys.modules
stop_with_launcher(os.getppid())
stop = StopSignal()
said = open(sys.argv[1], "w", buffering=1)
said.write("listens\\n")
while not stop.requested:
    time.sleep(0.01)
said.write(f"{stop.name}\\n")
time.sleep(2)  # a second signal ends it here
said.write("saved\\n")
"""
LAUNCHER = """
import subprocess, sys, threading, time
for _ in range(20):
    threading.Thread(target=time.sleep, args=(900,), daemon=True).start()
rank = subprocess.Popen(sys.argv[1:])
print(rank.pid, flush=True)
rank.wait()
"""


def wait_for(path: Path, word: str, timeout_s: float = 60) -> str:
    until = time.monotonic() + timeout_s
    while not (path.exists() and word in path.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    return path.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
@pytest.mark.parametrize("variable", ["RANK", "SLURM_STEP_NUM_TASKS"])
def test_the_end_of_a_launcher_with_threads_asks_once(tmp_path: Path, variable: str) -> None:
    """Linux sends the signal again for every thread of the dying process."""
    output = tmp_path / "said"
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, sys.executable, "-c", RANK, str(output)],
        env=os.environ | {variable: "0"},
        stdout=subprocess.PIPE,
    )
    assert launcher.stdout is not None
    assert int(launcher.stdout.readline()) > 0
    wait_for(output, "listens")
    launcher.kill()
    launcher.wait()
    assert wait_for(output, "saved") == "listens\nSIGUSR2\nsaved\n"


def test_a_second_signal_ends_the_process(tmp_path: Path) -> None:
    output = tmp_path / "said"
    rank = subprocess.Popen([sys.executable, "-c", RANK, str(output)])
    wait_for(output, "listens")
    rank.send_signal(signal.SIGUSR1)
    wait_for(output, "SIGUSR1")
    rank.send_signal(signal.SIGTERM)
    assert rank.wait(60) == 128 + signal.SIGTERM
    assert output.read_text() == "listens\nSIGUSR1\n"


HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture
def as_at_the_start() -> Iterator[None]:
    """As in a process of a terminal, whatever a shell in the background or another test in this process has left."""
    left = {each: signal.signal(each, signal.SIG_DFL) for each in HEARD}
    descriptor = signal.set_wakeup_fd(-1)
    yield
    signal.set_wakeup_fd(descriptor)
    for each, handler in left.items():
        signal.signal(each, handler)


@pytest.mark.usefixtures("as_at_the_start")
def test_close_gives_the_signals_back() -> None:
    stop = StopSignal()
    assert all(signal.getsignal(each) is not signal.SIG_DFL for each in HEARD)
    stop.close()
    stop.close()  # the second call does nothing
    assert all(signal.getsignal(each) is signal.SIG_DFL for each in HEARD)
    assert signal.set_wakeup_fd(-1) == -1
