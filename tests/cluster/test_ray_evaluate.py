"""`unsee evaluate --engine ray` on a real Ray of two nodes: the records are those of one process."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cluster.raylets import Raylets, raylets
from integration import tiny as launch
from integration.evaluating import TASKS, write_model, write_tasks
from integration.tiny import BIN, Tiny

# By themselves Ray's workers run behind everything else, and a node must be up in a minute: not so on a busy machine.
PATIENT = {"RAY_worker_niceness": "0", "RAY_raylet_start_wait_time_s": "300"}


def unsee(ray: Raylets | None, place: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """`unsee evaluate model --tasks ../tasks --json`, in `place`."""
    arguments = [str(BIN / "unsee"), "evaluate", "model", "--tasks", "../tasks", "--json", *more]
    return launch.run(arguments, cwd=place, env=ray.env if ray else launch.environment(), timeout_s=500)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # many processes that each import torch and mteb
def test_tasks_spread_over_a_cluster_score_as_in_one_process(tiny: Tiny, tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks")
    for name in ("alone", "spread"):
        write_model(tmp_path / name / "model", tiny)
    with raylets(2, **PATIENT) as ray:
        spread = unsee(ray, tmp_path / "spread", "--engine", "ray")
        assert spread.returncode == 0, spread.stderr
        again = unsee(ray, tmp_path / "spread", "--engine", "ray")
    output = [line.split()[1] for line in spread.stderr.splitlines() if "/7 " in line]
    assert sorted(output) == sorted(TASKS)
    assert again.stdout == spread.stdout
    assert "/7 " not in again.stderr, "evaluated again"
    alone = unsee(None, tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    found, expected = (
        {r["task"]: r["score"] for r in json.loads(done.stdout)["tasks"]} for done in (spread, alone)
    )
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # many processes that each import torch and mteb
def test_without_a_cluster_it_is_a_sentence(tiny: Tiny, tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks")
    write_model(tmp_path / "here" / "model", tiny)
    arguments = [str(BIN / "unsee"), "evaluate", "model", "--tasks", "../tasks", "--engine"]
    for engine, word in (
        ("ray", "no Ray cluster answers at 127.0.0.1:1"),
        ("rya", "--engine rya is unknown"),
    ):
        env = launch.environment(RAY_ADDRESS="127.0.0.1:1")
        done = launch.run([*arguments, engine], cwd=tmp_path / "here", env=env, timeout_s=500)
        assert done.returncode == 2
        assert word in done.stderr
        assert "Traceback" not in done.stderr
