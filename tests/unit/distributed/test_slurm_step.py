"""The port of a Slurm job is one number, wherever it is derived, and none that Linux gives to outgoing connections."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsee_dist.distributed.slurm import adopt_slurm, port_of_job, tasks_of_node

REPOSITORY = Path(__file__).resolve().parents[3]
EPHEMERAL = 32768  # Linux's net.ipv4.ip_local_port_range begins here
FORMULA = re.compile(r"\$\(\(([^()]*SLURM_JOB_ID[^()]*)\)\)")
SCRIPTS = [path for path in sorted((REPOSITORY / "slurm").glob("*.sh")) if FORMULA.search(path.read_text())]


@given(st.integers(1, 2**32 - 1))
def test_no_job_meets_at_an_ephemeral_or_a_privileged_port(job: int) -> None:
    assert 20000 <= port_of_job(job) < EPHEMERAL


@given(st.integers(1, 2**31), st.integers(1, 12767))
def test_jobs_that_run_at_one_time_meet_at_different_ports(job: int, later: int) -> None:
    assert port_of_job(job) != port_of_job(job + later)


def test_the_scripts_derive_a_port() -> None:
    assert [path.name for path in SCRIPTS] == ["sweep.sh", "train.sh"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_the_scripts_derive_the_same_port_as_the_ranks(path: Path) -> None:
    (formula,) = FORMULA.findall(path.read_text())
    for job in (1, 12767, 12768, 32768, 40123, 2**31):
        done = subprocess.run(
            ["bash", "-c", f"SLURM_JOB_ID={job}; echo $(({formula}))"], capture_output=True, text=True
        )
        assert int(done.stdout) == port_of_job(job), path.name


def test_a_bare_srun_meets_at_the_port_of_its_job() -> None:
    step = {"SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "2", "MASTER_ADDR": "n1"}
    environment = step | {"SLURM_JOB_ID": "19999", "SLURM_STEP_NODELIST": "n[1-2]"}
    adopt_slurm(environment)
    assert int(environment["MASTER_PORT"]) == port_of_job(19999) < EPHEMERAL


@pytest.mark.parametrize(
    ("listed", "node", "tasks"),
    [("2", "0", 2), ("8(x2),4", "1", 8), ("8(x2),4", "2", 4), ("1,3(x4)", "4", 3), (None, None, 1)],
)
def test_the_tasks_of_a_node_are_read_from_slurms_list(
    listed: str | None, node: str | None, tasks: int
) -> None:
    given = {"SLURM_STEP_TASKS_PER_NODE": listed, "SLURM_NODEID": node}
    assert tasks_of_node({name: value for name, value in given.items() if value is not None}) == tasks
