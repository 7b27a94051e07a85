"""slurm/sweep.sh on a real Slurm cluster of two nodes: a real Ray over both, a real sweep, stopped and requeued."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration import tiny as launch
from integration.tiny import BIN, REPOSITORY, Tiny

STEPS, PATIENCE_S = 100, 900  # two Rays and two worker groups start, on a machine that may be busy


def write(tiny: Tiny, name: str) -> Path:
    """Two trials, one after the other; the two ranks of each on a node of its own."""
    path = tiny.folder / f"{name}.yaml"
    tree = {
        "extends": str(tiny.config),
        "train": {"steps": STEPS},
        "evaluate": {"every": 50},
        "checkpoint": {"every": 10},
        "sweep": {
            "dir": str(tiny.folder / name),
            "metric": "dev/std",
            "search": "grid",
            "scheduler": "none",
            "ranks": 2,
        },
        "space": {"train.lr": {"choice": [0.001, 0.003]}},
    }
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def wait_until(true: Callable[[], Any], tell: Callable[[], str]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until, tell()
        time.sleep(1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_sweep_over_two_nodes_is_requeued_in_the_middle_and_goes_on(
    cluster: dict[str, str], tiny: Tiny
) -> None:
    env, log, folder = (
        cluster | {"UNSEE": str(BIN / "unsee")},
        tiny.folder / "sweep.log",
        tiny.folder / "on-slurm",
    )
    order = ["sbatch", "--parsable", "--nodes=2", "--cpus-per-task=1", f"--output={log}", "slurm/sweep.sh"]
    job = launch.succeed([*order, str(write(tiny, "on-slurm"))], env=env).stdout.strip()
    ray_log = REPOSITORY / f"slurm-unsee-sweep-{job}-ray.out"

    def said() -> str:
        return "\n".join(path.read_text() for path in (log, ray_log) if path.exists())

    def state() -> str:
        return launch.run(["scontrol", "show", "job", job], env=env).stdout

    try:
        wait_until(
            lambda: list(folder.glob("trials/*/checkpoints/step-*/manifest.json")) or "FAILED" in state(),
            said,
        )
        launch.succeed(["scancel", "--batch", "--signal=USR1", job], env=env)  # as B:USR1 before the limit
        wait_until(lambda: "Restarts=1" in state() or "FAILED" in state(), said)
        assert "Restarts=1" in state(), said()
        assert not (folder / "driver.json").exists()
        launch.run(["scontrol", "update", f"jobid={job}", "StartTime=now"], env=env)  # Slurm holds it back
        wait_until(lambda: any(end in state() for end in ("COMPLETED", "FAILED", "CANCELLED")), said)
        assert "JobState=COMPLETED" in state(), state() + said()
        printed = said()
    finally:
        launch.run(["scancel", job], env=env)
        ray_log.unlink(missing_ok=True)
    rows = json.loads((folder / "trials.json").read_bytes())["trials"]
    assert sorted(float(row["point"]["train.lr"]) for row in rows) == [0.001, 0.003]
    assert {row["status"] for row in rows} == {"complete"}
    for row in rows:
        run = folder / "trials" / row["trial"]
        assert list(launch.losses(run)) == list(range(1, STEPS + 1))
        assert len([line for line in launch.lines(run / "metrics.jsonl") if "loss" in line]) == STEPS
        assert len(list((run / "trace").iterdir())) == 2
    assert "stopped; the same command continues" in printed
    assert (folder / "report" / "best.yaml").exists()
    assert not list(REPOSITORY.glob(f".unsee-sweep-{job}*"))
    assert not list(Path("/tmp").glob(f"ray-{job}-*"))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_port_that_another_has_ends_the_job_with_a_sentence(cluster: dict[str, str], tiny: Tiny) -> None:
    log, order = tiny.folder / "taken.log", ["sbatch", "--parsable", "--nodes=2", "--cpus-per-task=1"]
    before = launch.succeed([*order, "--output=/dev/null", "--wrap=true"], env=cluster).stdout
    number = int(before) + 1
    with socket.socket() as another:
        another.bind(("", 20000 + number % 12768))
        another.listen()
        arguments = [*order, f"--output={log}", "slurm/sweep.sh", str(write(tiny, "taken"))]
        env = cluster | {"UNSEE": str(BIN / "unsee")}
        assert launch.succeed(arguments, env=env).stdout.strip() == str(number)
        ray_log = REPOSITORY / f"slurm-unsee-sweep-{number}-ray.out"

        def state() -> str:
            return launch.run(["scontrol", "show", "job", str(number)], env=env).stdout

        try:
            wait_until(lambda: "FAILED" in state(), state)
            assert "Ray ended three times" in ray_log.read_text()
        finally:
            launch.run(["scancel", str(number)], env=env)
            ray_log.unlink(missing_ok=True)
    assert "not all nodes have joined Ray: see slurm-unsee-sweep" in log.read_text()
    assert not (tiny.folder / "taken").exists()


def test_sweep_sh_says_how_it_is_used() -> None:
    done = launch.run(["bash", "slurm/sweep.sh"])
    assert done.returncode == 2
    assert "usage: sbatch slurm/sweep.sh" in done.stderr
