"""What is wrong with a machine gets its level and its remedy; the table says each thing once, the exit code is the worst's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from unsee_dist.distributed.world import World
from unsee_dist.doctor import findings, machine, ranks, services
from unsee_dist.doctor.findings import Finding, Level

PASS, WARN, FAIL = Level.PASS, Level.WARN, Level.FAIL


def levels(found) -> list[Level]:
    return [each.level for each in found]


def test_the_worst_decides_and_a_warning_stops_no_script() -> None:
    rows = [Finding(PASS, "a", "x"), Finding(WARN, "b", "y", "z")]
    assert findings.exit_code([]) == findings.exit_code(rows) == 0
    assert findings.exit_code([*rows, Finding(FAIL, "c", "y", "z")]) == 2
    assert findings.as_json(rows, 1)["worst"] == "WARN"


def test_what_all_hosts_share_is_said_once_and_lines_fit() -> None:
    shared = [Finding(PASS, "versions", "python 3.11", host=host) for host in ("a", "b", "b")]
    own = Finding(WARN, "disk", "slow " * 30, "another disk " * 10, "b")
    together = Finding(PASS, "all-reduce", "64 MiB", host=findings.BETWEEN)
    found = [*shared, own, together]
    assert list(findings.by_host(found)) == ["all 2 hosts", "b", findings.BETWEEN]
    assert findings.as_json(found, 3)["hosts"] == ["a", "b"]
    text = findings.as_text(found, 3, 60)
    assert text.count("python 3.11") == 1
    assert "-> another disk" in text
    assert max(map(len, text.splitlines())) <= 60
    assert text.splitlines()[-1] == "3 ranks on 2 hosts: 3 PASS, 1 WARN, 0 FAIL"


def test_few_open_files_are_a_failure_with_the_command_that_mends_it() -> None:
    script = (
        "import resource; from unsee_dist.doctor import machine\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "for soft in (200, 600, 1024):\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))\n"
        "    (found,) = machine.open_files(); print(found.level.name, found.remedy)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    few, some, enough = done.stdout.splitlines()
    assert few.startswith("FAIL ulimit -n")
    assert some.startswith("WARN ulimit -n")
    assert enough.strip() == "PASS"


def test_a_disk_is_written_to_and_left_as_it_was(tmp_path: Path) -> None:
    assert levels(machine.disk(tmp_path)) == [PASS]
    assert list(tmp_path.iterdir()) == []
    (gone,) = machine.disk(tmp_path / "nowhere")
    assert gone.level is FAIL
    assert "unsee doctor DIR" in gone.remedy


def test_a_disk_without_hard_links_cannot_hold_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (found,) = machine.disk(tmp_path)
    assert found.level is FAIL
    assert "hard links" in found.what
    assert list(tmp_path.iterdir()) == []


def test_a_package_of_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert levels(machine.versions()) == [PASS]
    monkeypatch.setattr(machine, "_version", lambda name: "0.1" if name == "torch" else None)
    first, _ = machine.versions()
    assert first.level is FAIL
    assert "torch 0.1 is not >=2.11" in first.what
    assert "deepspeed is missing" in first.what


def test_more_threads_than_cores_is_a_warning() -> None:
    assert levels(machine.cores(1)) == [PASS]
    (many,) = machine.cores(1000)
    assert many.level is WARN
    assert "OMP_NUM_THREADS=1" in many.remedy


def test_a_tracker_that_does_not_answer_is_a_warning_and_a_wrong_address_a_failure(monkeypatch) -> None:
    with socket.socket() as bound:  # nobody listens
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{bound.getsockname()[1]}")
        (found,) = services.mlflow()
        assert found.level is WARN
        assert "does not answer" in found.what
        assert "secret" not in found.what
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "localhost:5000")
    assert levels(services.mlflow()) == [FAIL]


def test_slurm_ray_and_ports_are_seen() -> None:
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_JOB_NUM_NODES": "2"}
    (alone,) = services.slurm(job)
    assert (alone.level, alone.remedy) == (WARN, "Write srun unsee doctor")
    assert levels(services.slurm(job | {"SLURM_STEP_NUM_TASKS": "8"})) == [PASS]
    assert levels(services.slurm({})) == [PASS]
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert levels(services.ray({"RAY_ADDRESS": address})) == [PASS]
    assert levels(services.ray({"RAY_ADDRESS": address})) == [WARN]
    with socket.socket() as taken:
        taken.bind(("", services.port_of_job(7)))
        taken.listen()
        (used,) = services.ports({"SLURM_JOB_ID": "7"})
        assert used.level is WARN
        assert "in use" in used.what
    assert levels(services.ports({"SLURM_JOB_ID": "7"})) == [PASS]
    assert levels(services.ports({"RANK": "0", "MASTER_PORT": "1", "MASTER_ADDR": "h"})) == [PASS]


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_the_command_says_all_of_it(tmp_path: Path, arguments: list[str]) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "unsee_dist", "doctor", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    checks = {"versions", "accelerator", "cores", "shared memory", "open files", "disk", "hub", "mlflow"}
    checks |= {"slurm", "ray", "ports", "ranks"}
    if arguments:
        tree = json.loads(done.stdout)
        assert {row["check"] for row in tree["findings"]} == checks
        assert tree["worst"] in ("PASS", "WARN")
    else:
        assert all(f"  {check:<13} " in done.stdout for check in checks)
    assert list(tmp_path.iterdir()) == []


def test_a_cpu_without_bf16_is_told_what_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "DRIVER", Path("/nowhere"))
    for can, level in ((True, PASS), (False, WARN)):
        monkeypatch.setattr(machine, "cpu_computes_bf16", lambda can=can: can)
        (found,) = machine.accelerator()
        assert found.level is level
        assert ("Write parallel.precision=fp32" in found.remedy) == (not can)


def test_a_driver_that_torch_does_not_see_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine.torch.cuda, "is_available", lambda: False)
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.10  Thu\n")
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "version")
    (found,) = machine.accelerator()
    assert found.level is FAIL
    assert "570.86.10" in found.what


@pytest.mark.slow  # a name server is asked again and again
def test_ranks_that_cannot_meet_are_a_failure_and_the_rest_is_said(tmp_path: Path) -> None:
    lost = {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "no.such.host",
        "MASTER_PORT": "1",
    }
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | lost
    command = [sys.executable, "-m", "unsee_dist", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    rows = json.loads(done.stdout)["findings"]
    assert [row["check"] for row in rows if row["level"] == "FAIL"] == ["ranks"]
    assert {"versions", "disk", "mlflow"} <= {row["check"] for row in rows}


def test_the_main_thread_computes_on_the_gpu_of_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ranks meet in a thread, and CUDA's current device is each thread's own: nccl would take objects from GPU 0."""
    chosen: list[tuple[int | None, bool]] = []

    def set_device(device: torch.device) -> None:
        chosen.append((device.index, threading.current_thread() is threading.main_thread()))

    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    world = World(1, 2, 1, torch.device("cuda", 1))
    monkeypatch.setattr(ranks, "join_world", lambda stopped: world)  # noqa: ARG005  (called by name)
    assert ranks._meet()[0] is world
    assert chosen == [(1, True)]
