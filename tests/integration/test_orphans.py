"""A killed rank leaves nobody behind, nor does a launcher that is killed before the ranks have met."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time

import psutil
import pytest
from integration import ranks
from integration import tiny as launch
from integration.tiny import Tiny

from unsee_dist.errors import ExitCode


def test_the_workers_of_a_killed_rank_end_with_it(tiny: Tiny) -> None:
    settings = (f"run.dir={tiny.folder / 'orphans'}", "data.workers=2", "train.steps=100000")
    started = ranks.start(1, tiny.config, *settings)
    rank = psutil.Process(started.processes[0].pid)
    metrics = tiny.folder / "orphans" / "metrics.jsonl"
    until = time.monotonic() + 400
    while not (metrics.exists() and "loss" in metrics.read_text()) and time.monotonic() < until:
        time.sleep(0.2)
    family = rank.children(recursive=True)
    assert len(family) >= 3, started.text()  # the forkserver and two workers
    started.kill()
    _, alive = psutil.wait_procs(family, timeout=120)
    assert not alive


@pytest.mark.parametrize(
    ("launcher", "wait_s"),
    [
        ("torchrun", 0.0),
        *(
            pytest.param(launcher, wait_s, marks=pytest.mark.slow)
            for launcher, wait_s in (
                ("torchrun", 1.0),
                ("torchrun", 3.0),
                ("deepspeed", 0.0),
                ("deepspeed", 1.0),
            )
        ),
    ],
)
def test_a_launcher_killed_before_the_ranks_have_met_leaves_nobody(
    launcher: str, wait_s: float, tiny: Tiny
) -> None:
    folder = tiny.folder / f"unmet-{launcher}-{wait_s}"
    started = launch.start(
        launch.command(launcher, 2, tiny.config, f"run.dir={folder}", "train.steps=100000")
    )
    until = time.monotonic() + 120
    while len(family := _ranks_of(started.pid)) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(wait_s)
    started.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    for process in alive:
        process.kill()
    assert len(family) == 2
    assert not alive


def _ranks_of(launcher: int) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(launcher).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            words = process.cmdline()
            if launch.SCRIPT in words and "deepspeed.launcher.launch" not in words:
                found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_rank_that_waits_for_the_others_hears_its_first_signal(rank: str, name: str, tiny: Tiny) -> None:
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(launch.free_port()), "WORLD_SIZE": "2"}
    mark, folder = tiny.folder / f"mark-{rank}-{name}", tiny.folder / f"waits-{rank}-{name}"
    environment = launch.environment(RANK=rank, LOCAL_RANK=rank, UNSEE_STOP_MARK=str(mark), **meeting)
    command = launch.command("python", 1, tiny.config, f"run.dir={folder}")
    waiting = subprocess.Popen(command, cwd=launch.REPOSITORY, env=environment)
    try:
        time.sleep(12)  # torch is imported, and it waits
        assert waiting.poll() is None
        waiting.send_signal(getattr(signal, name))
        assert waiting.wait(20) == ExitCode.STOPPED
    finally:
        waiting.kill()
    assert mark.exists() == (rank == "0")
    assert not folder.exists()
