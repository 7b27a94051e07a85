"""`srun unsee doctor` over the two nodes of a real Slurm cluster."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from integration import tiny as launch
from slurm_jobs import Cluster

pytestmark = pytest.mark.slow
DOCTOR = f"{launch.BIN}/unsee doctor"


def srun(slurm: Cluster, folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    arguments = ["srun", "--nodes=2", "--ntasks-per-node=1", "bash", "-c", command]
    return launch.run(arguments, cwd=folder, env=slurm.environment, timeout_s=400)


def found(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Rank 0 alone prints: what it prints is one JSON."""
    assert "Traceback" not in done.stderr, done.stderr
    return dict(json.loads(done.stdout))


def levels(plan: dict[str, Any], check: str) -> dict[str, str]:
    return {each["host"]: each["level"] for each in plan["findings"] if each["check"] == check}


def test_both_nodes_are_looked_at_and_reduce_one_tensor(slurm: Cluster, tmp_path: Path) -> None:
    done = srun(slurm, tmp_path, f"{DOCTOR} --json")
    assert done.returncode == 0, done.stdout + done.stderr
    plan = found(done)
    assert (plan["ranks"], plan["hosts"]) == (2, ["n1", "n2"])
    assert plan["worst"] in ("PASS", "WARN")
    for check in ("versions", "cores", "disk", "open files", "clock", "slurm"):
        assert set(levels(plan, check)) == {"n1", "n2"}, check
    assert set(levels(plan, "all-reduce")) == {"between hosts"}
    subjects = {each["what"] for each in plan["findings"]}
    assert any("over 2 ranks (gloo)" in what for what in subjects), subjects
    assert any("2 nodes, 2 tasks" in what for what in subjects), subjects
    assert any("1 rank here of" in what for what in subjects), subjects
    assert list(tmp_path.iterdir()) == []


def test_the_table_has_a_part_for_each_node(slurm: Cluster, tmp_path: Path) -> None:
    done = srun(slurm, tmp_path, DOCTOR)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("2 ranks on 2 hosts: ")
    assert lines[-1].endswith(", 0 FAIL")
    assert lines[0] == "all 2 hosts"
    assert "between hosts" in lines


def test_a_folder_that_the_nodes_do_not_share_fails_on_one_of_them(slurm: Cluster, tmp_path: Path) -> None:
    done = srun(slurm, tmp_path, f"mkdir own-$SLURM_PROCID && {DOCTOR} --json own-$SLURM_PROCID")
    assert done.returncode == 2, done.stdout + done.stderr
    plan = found(done)
    assert plan["worst"] == "FAIL"
    assert levels(plan, "shared folder") == {"n2": "FAIL"}
