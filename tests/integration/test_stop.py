"""Laws 3 and 4 on running processes: a stop by signal loses nothing; a rank that hangs or dies ends the job with its name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from integration import ranks
from integration import tiny as launch
from integration.tiny import Tiny

from unsee_dist.errors import ExitCode


def whole(folder: Path) -> tuple[bytes, bytes, object, object]:
    """What a run leaves: the encoder, the last checkpoint's manifest of digests, metrics and trace."""
    import json

    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    manifest = json.loads((newest / "manifest.json").read_text())
    digests = [(file["name"], file["xxh3"]) for file in manifest["files"]]
    weights = (folder / "final" / "model.safetensors").read_bytes()
    return weights, repr(digests).encode(), launch.history(folder), launch.traced(folder)


@pytest.fixture(scope="module")
def through(tiny: Tiny) -> Path:
    """The run of two ranks that nothing stopped."""
    folder = tiny.folder / "through"
    ranks.start(2, tiny.config, f"run.dir={folder}").succeed()
    return folder


@pytest.mark.parametrize(
    ("at", "name"),
    [
        ("backward 4", "SIGTERM"),
        *(
            pytest.param(at, name, marks=pytest.mark.slow)
            for at, name in (
                *(("build 0", "SIGINT"), ("build 0", "SIGUSR1"), ("evaluation 3", "SIGINT")),
                *(("evaluation 3", "SIGTERM"), ("save 3", "SIGUSR1"), ("save 3", "SIGTERM")),
            )
        ),
    ],
)
def test_a_signal_to_one_rank_stops_all_at_one_step_and_the_run_ends_as_if_there_had_been_none(
    at: str, name: str, tiny: Tiny, through: Path
) -> None:
    folder = tiny.folder / f"stopped-{at.replace(' ', '-')}-{name}"
    mark, step = tiny.folder / f"mark-{folder.name}", f"step-0000000{at[-1]}"
    variables = {"UNSEE_KILL_AT": f"{at} 1 {name}", "UNSEE_STOP_MARK": str(mark)}
    stopped = ranks.start(2, tiny.config, f"run.dir={folder}", **variables)
    assert stopped.wait() == [ExitCode.STOPPED, ExitCode.STOPPED], stopped.text()
    assert "the same command continues" in stopped.text()
    assert "Traceback" not in stopped.text()
    saved = sorted((folder / "checkpoints").glob("step-*"))
    assert (saved[-1].name if saved else "step-00000000") == step
    assert mark.read_text() == f"{step}\n"
    ranks.start(2, tiny.config, f"run.dir={folder}").succeed()
    assert whole(folder) == whole(through)


def test_a_signal_is_heard_before_torch_is_there(tiny: Tiny) -> None:
    """Its import takes seconds, in which a signal would end one rank and leave the others waiting for it."""
    early = _site(
        tiny.folder,
        "early",
        "import os, signal, sys\n"
        "class Strike:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch' and os.environ.get('RANK') == '1':\n"
        "            sys.meta_path.remove(self)\n"
        "            os.kill(os.getpid(), signal.SIGUSR1)\n"
        "sys.meta_path.insert(0, Strike())\n",
    )
    stopped = ranks.start(2, tiny.config, f"run.dir={tiny.folder / 'early-run'}", PYTHONPATH=early)
    assert stopped.wait() == [ExitCode.STOPPED, ExitCode.STOPPED], stopped.text()


@pytest.mark.slow
def test_a_second_signal_ends_at_once(tiny: Tiny) -> None:
    started = ranks.start(1, tiny.config, f"run.dir={tiny.folder / 'twice'}", "train.steps=100000")
    metrics = tiny.folder / "twice" / "metrics.jsonl"
    until = time.monotonic() + 300
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < until:
        time.sleep(0.2)
    process = started.processes[0]
    os.kill(process.pid, signal.SIGSTOP)  # both arrive before it can act on the first
    os.kill(process.pid, signal.SIGTERM)
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGCONT)
    assert started.wait(20)[0] in (128 + signal.SIGTERM, 128 + signal.SIGINT), started.text()


@pytest.mark.slow
def test_a_stop_that_takes_longer_than_its_grace_is_cut_off(tiny: Tiny) -> None:
    """Rank 1 hangs where rank 0 is asked: no checkpoint can come about, and rank 0 waits inside gloo."""
    folder = tiny.folder / "no-grace"
    started = ranks.start(
        2, tiny.config, f"run.dir={folder}", "checkpoint.grace_s=3", UNSEE_KILL_AT="forward 2 1 SIGSTOP"
    )
    try:
        until = time.monotonic() + 300
        while _state(started.processes[1].pid) != "T" and time.monotonic() < until:
            time.sleep(0.2)
        started.processes[0].send_signal(signal.SIGTERM)
        assert started.processes[0].wait(120) == ExitCode.STOPPED, started.text()
        assert "checkpoint.grace_s = 3" in started.text()
    finally:
        started.kill()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@pytest.mark.parametrize(
    ("zero", "how"),
    [
        (1, "SIGKILL"),
        *(pytest.param(zero, "SIGKILL", marks=pytest.mark.slow) for zero in (0, 2, 3)),
        *(pytest.param(zero, "SIGSTOP", marks=pytest.mark.slow) for zero in range(4)),
    ],
)
def test_a_rank_that_hangs_or_dies_is_named(zero: int, how: str, tiny: Tiny) -> None:
    folder = tiny.folder / f"lost-{zero}-{how}"
    started = ranks.start(
        2,
        tiny.config,
        *(f"run.dir={folder}", f"parallel.zero={zero}", "guard.timeout_s=12"),
        UNSEE_KILL_AT=f"backward 2 1 {how}",
    )
    try:
        assert started.processes[0].wait(300) == ExitCode.RANK_LOST, started.text()
        printed = started.text()
        assert f"rank 1 on {os.uname().nodename} (step " in printed  # its last word: up to a second old
        assert "has sent no status for" in printed
        why = {
            "SIGKILL": "Its process has ended.",
            "SIGSTOP": "It has died, is stopped, or its network is down.",
        }
        assert why[how] in printed
    finally:
        started.kill()


def test_a_rank_whose_python_stands_still_is_named_and_every_rank_shows_its_stack(tiny: Tiny) -> None:
    """It beats on: only its main thread hangs, and the others wait for it in a collective."""
    folder = tiny.folder / "asleep"
    started = ranks.start(
        2,
        tiny.config,
        *(f"run.dir={folder}", "guard.timeout_s=12"),
        PYTHONPATH=_sleeper(tiny.folder),
    )
    assert started.wait(300) == [ExitCode.RANK_LOST, ExitCode.RANK_LOST], started.text()
    printed = started.text()
    assert f"rank 1 on {os.uname().nodename} (step 3, forward) has made no progress for" in printed
    assert "guard.timeout_s = 12" in printed
    assert "sleep_for_ever" in printed  # the line it hangs in, from its own stack
    assert "rank 0 was in step 3" in printed


def _sleeper(folder: Path) -> str:
    """Rank 1's main thread sleeps in the forward pass of step 3."""
    return _site(
        folder,
        "sleeper",
        "import os, time\n"
        "def sleep_for_ever():\n"
        "    while True: time.sleep(1000)\n"
        "if os.environ.get('RANK') == '1':\n"
        "    from unsee_dist.supervision import phases\n"
        "    failpoint = phases.failpoint\n"
        "    def reaching(phase, step):\n"
        "        failpoint(phase, step)\n"
        "        if (phase, step) == ('forward', 3): sleep_for_ever()\n"
        "    phases.failpoint = reaching\n",
    )


def _site(folder: Path, name: str, code: str) -> str:
    """A PYTHONPATH whose sitecustomize is `code`: python runs it first."""
    site = folder / f"site-{name}"
    site.mkdir()
    (site / "sitecustomize.py").write_text(code, encoding="utf-8")
    return f"{site}{os.pathsep}{launch.REPOSITORY}"
