"""slurm/train.sh on a real Slurm cluster of two nodes (the fixture `cluster`)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from integration import ranks
from integration import tiny as launch
from integration.tiny import REPOSITORY, Tiny

SCRIPTS = REPOSITORY / "cluster" / "slurm-local"


@pytest.mark.slow
def test_two_nodes_make_the_run_of_one_process(cluster: dict[str, str], tiny: Tiny) -> None:
    alone, folder, log = tiny.folder / "alone", tiny.folder / "nodes", tiny.folder / "job.log"
    launch.succeed(launch.command("python", 1, tiny.config, f"run.dir={alone}"))
    submit = ["sbatch", "--wait", "--nodes=2", "--cpus-per-task=1", f"--output={log}"]
    done = launch.run(
        [*submit, "slurm/train.sh", str(tiny.config), f"run.dir={folder}"], env=cluster, timeout_s=240
    )
    assert done.returncode == 0, log.read_text() if log.exists() else done.stderr
    assert launch.losses(folder) == pytest.approx(launch.losses(alone), rel=1e-4)
    assert launch.traced(folder) == launch.traced(alone)
    assert len(list((folder / "trace").iterdir())) == 2
    assert (folder / "final" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_mistake_ends_the_job(cluster: dict[str, str], tiny: Tiny) -> None:
    log = tiny.folder / "mistake.log"
    submit = ["sbatch", "--wait", "--nodes=2", "--cpus-per-task=1", f"--output={log}"]
    done = launch.run(
        [*submit, "slurm/train.sh", str(tiny.config), "train.batch=9"], env=cluster, timeout_s=240
    )
    assert done.returncode == 2, log.read_text()
    assert "train.batch = 9" in log.read_text()
    assert "Traceback" not in log.read_text()


def submit(cluster: dict[str, str], tiny: Tiny, name: str, *overrides: str) -> tuple[str, Path, Path]:
    """A job of two nodes that takes a while: its number, run folder and log. It has taken a step when this returns."""
    folder, log = tiny.folder / name, tiny.folder / f"{name}.log"
    order = ["sbatch", "--parsable", "--nodes=2", "--cpus-per-task=1", f"--output={log}"]
    told = [str(tiny.config), f"run.dir={folder}", "train.steps=400", "checkpoint.every=50", *overrides]
    done = launch.run([*order, "slurm/train.sh", *told], env=cluster)
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    metrics = folder / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and "loss" in metrics.read_text(), 120, lambda: read(log))
    return job, folder, log


def wait_until(true: Callable[[], bool], timeout_s: float, tell: Callable[[], str]) -> None:
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, tell()
        time.sleep(0.5)


def read(log: Path) -> str:
    return log.read_text() if log.exists() else "no log"


def state_of(cluster: dict[str, str], job: str) -> str:
    shown = launch.run(["scontrol", "show", "job", job], env=cluster).stdout
    return next((word for word in shown.split() if word.startswith("JobState=")), "JobState=GONE")


def ended(cluster: dict[str, str], job: str) -> bool:
    return not any(
        word in state_of(cluster, job) for word in ("PENDING", "RUNNING", "COMPLETING", "SUSPENDED")
    )


@pytest.mark.slow
def test_a_preempted_job_requeues_itself_and_ends_as_one_never_stopped(
    cluster: dict[str, str], tiny: Tiny
) -> None:
    job, folder, log = submit(cluster, tiny, "preempted")
    launch.succeed(["scancel", "--batch", "--signal=USR1", job], env=cluster)  # as B:USR1 before the limit
    wait_until(
        lambda: "Restarts=1" in launch.run(["scontrol", "show", "job", job], env=cluster).stdout,
        90,
        lambda: read(log),
    )
    launch.run(
        ["scontrol", "update", f"jobid={job}", "StartTime=now"], env=cluster
    )  # Slurm holds a requeued job back
    wait_until(lambda: ended(cluster, job), 300, lambda: read(log))
    assert "COMPLETED" in state_of(cluster, job), read(log)
    alone = tiny.folder / "not-preempted"
    ranks.start(2, tiny.config, f"run.dir={alone}", "train.steps=400", "checkpoint.every=50").succeed(240)
    assert launch.history(folder) == launch.history(alone)
    assert launch.traced(folder) == launch.traced(alone)
    weights = [(place / "final" / "model.safetensors").read_bytes() for place in (folder, alone)]
    assert weights[0] == weights[1]
    assert not list(REPOSITORY.glob(f".unsee-stopped-{job}*"))


@pytest.mark.slow
def test_scancel_saves_and_ends(cluster: dict[str, str], tiny: Tiny) -> None:
    job, folder, log = submit(cluster, tiny, "cancelled", "train.steps=100000")
    launch.succeed(["scancel", job], env=cluster)
    wait_until(lambda: ended(cluster, job), 90, lambda: read(log))
    assert "CANCELLED" in state_of(cluster, job)
    steps = [line["step"] for line in launch.history(folder) if "loss" in line]
    saved = sorted((folder / "checkpoints").glob("step-*"))[-1]
    assert int(saved.name.removeprefix("step-")) >= max(steps) - 50, read(log)


@pytest.mark.slow
def test_a_killed_rank_ends_the_job(cluster: dict[str, str], tiny: Tiny) -> None:
    job, _, log = submit(cluster, tiny, "killed", "train.steps=100000")
    members = [p for p in psutil.process_iter(["cmdline", "environ"]) if _is_rank(p, job, "1")]
    assert members
    for process in members:
        process.kill()
    wait_until(lambda: ended(cluster, job), 120, lambda: read(log))
    assert "FAILED" in state_of(cluster, job), read(log)


def _is_rank(process: psutil.Process, job: str, rank: str) -> bool:
    found = process.info["environ"] or {}
    command = " ".join(process.info["cmdline"] or [])
    return found.get("SLURM_JOB_ID") == job and found.get("SLURM_PROCID") == rank and "train.py" in command


def test_train_sh_says_how_it_is_used() -> None:
    done = launch.run(["bash", "slurm/train.sh"])
    assert done.returncode == 2
    assert "usage: sbatch slurm/train.sh" in done.stderr


def test_scripts_are_executable() -> None:
    scripts: list[Path] = [*SCRIPTS.glob("*.sh"), *(REPOSITORY / "slurm").glob("*.sh")]
    assert len(scripts) >= 4
    assert all(os.access(script, os.X_OK) for script in scripts)
