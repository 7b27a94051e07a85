"""What happens to a job of slurm/train.sh when its cluster fails it: it continues as the script says, or ends."""

from __future__ import annotations

import pytest
from integration import tiny as launch
from integration.tiny import REPOSITORY, Tiny
from slurm_jobs import Cluster, Job, submit, train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
FOR_EVER = ("train.steps=100000", "evaluate.every=100000", "checkpoint.every=20")


def continues(job: Job) -> None:
    """It is requeued, and takes steps that the checkpoint it starts from does not have."""
    job.wait_until(lambda: job.fact("Restarts") == "1")
    job.wait_until(lambda: job.start_again() or job.fact("JobState") == "RUNNING")
    job.wait_until(lambda: "continuing" in job.output())
    began = int(job.output().split(" after step ")[1].split()[0])
    job.wait_until(lambda: job.last_step() > began)
    steps = [line["step"] for line in launch.lines(job.folder / "metrics.jsonl") if "loss" in line]
    assert steps == list(range(1, len(steps) + 1))
    job.cancel()


def test_a_killed_slurmstepd_makes_the_ranks_save_and_the_job_requeue_itself(
    slurm: Cluster, tiny: Tiny
) -> None:
    job = train(slurm, tiny, "stepd", *FOR_EVER)
    job.kill_stepd("1")
    job.wait_until(lambda: "stopped after" in job.output())
    reached = job.last_step()
    continues(job)
    assert f" after step {reached} " in job.output()


def test_a_node_whose_slurmd_is_gone_is_missed_by_slurm_which_requeues_the_job(
    slurm: Cluster, tiny: Tiny
) -> None:
    job = train(slurm, tiny, "slurmd", *FOR_EVER)
    job.wait_until(lambda: job.last_step() > 20)
    slurm.take_down("n2")
    job.wait_until(lambda: job.fact("Restarts") == "1")  # SlurmdTimeout
    slurm.bring_back("n2")
    continues(job)
    assert "NODE FAILURE" in job.output()


def test_a_node_that_dies_with_its_ranks_is_missed_by_the_script_which_requeues_the_job(
    slurm: Cluster, tiny: Tiny
) -> None:
    slurm.miss_nodes_after(600)  # long after the surviving rank has ended the step
    job = train(slurm, tiny, "node", *FOR_EVER)
    job.wait_until(lambda: job.last_step() > 20)
    slurm.take_down("n2")
    members = job.ranks("1")
    job.kill_stepd("1")
    for process in members:
        process.kill()
    job.wait_until(lambda: job.fact("Restarts") == "1")
    slurm.bring_back("n2")
    slurm.miss_nodes_after(30)
    continues(job)
    assert "rank 1 on" in job.output()
    assert "NODE FAILURE" not in job.output()


def test_restarts_are_capped_and_those_that_get_no_further_end(slurm: Cluster, tiny: Tiny) -> None:
    """In python's place a script that stops as ranks do, at once: what is tried is the batch script and Slurm."""
    stops, advances = tiny.folder / "stops", tiny.folder / "advances"
    stops.write_text('#!/bin/sh\necho step-00000007 >"$UNSEE_STOP_MARK"\nexit 75\n')
    advances.write_text(stops.read_text().replace("step-00000007", '"step-${SLURM_RESTART_COUNT:-0}"'))
    for script in (stops, advances):
        script.chmod(0o755)
    idle = submit(slurm, tiny, "idle", nodes=1, PYTHON=str(stops))
    capped = submit(slurm, tiny, "capped", nodes=1, PYTHON=str(advances), UNSEE_RESTARTS="3")
    for job in (idle, capped):
        job.wait_until(lambda: idle.start_again() or capped.start_again() or job.ended())  # noqa: B023
    assert [job.fact("Restarts") for job in (idle, capped)] == ["2", "3"]
    assert [job.fact("ExitCode") for job in (idle, capped)] == ["75:0", "75:0"]
    assert "two restarts got no step further than step-00000007: not requeued." in idle.output()
    assert "restarted 3 times: not requeued." in capped.output()
    assert not [mark for job in (idle, capped) for mark in REPOSITORY.glob(f".unsee-stopped-{job.number}*")]
