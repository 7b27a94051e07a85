"""slurm/train.sh on a real Slurm cluster of two nodes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from integration import ranks
from integration import tiny as launch
from integration.tiny import REPOSITORY, Tiny
from slurm_jobs import SCRIPTS, Cluster, submit, train


@pytest.mark.slow
def test_two_nodes_make_the_run_of_one_process(slurm: Cluster, tiny: Tiny) -> None:
    alone, folder, log = tiny.folder / "alone", tiny.folder / "nodes", tiny.folder / "job.log"
    launch.succeed(launch.command("python", 1, tiny.config, f"run.dir={alone}"))
    submit = ["sbatch", "--wait", "--nodes=2", "--cpus-per-task=1", f"--output={log}"]
    done = launch.run(
        [*submit, "slurm/train.sh", str(tiny.config), f"run.dir={folder}"],
        env=slurm.environment,
        timeout_s=240,
    )
    assert done.returncode == 0, log.read_text() if log.exists() else done.stderr
    assert launch.losses(folder) == pytest.approx(launch.losses(alone), rel=1e-4)
    assert launch.traced(folder) == launch.traced(alone)
    assert len(list((folder / "trace").iterdir())) == 2
    assert (folder / "final" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_mistake_ends_the_job(slurm: Cluster, tiny: Tiny) -> None:
    log = tiny.folder / "mistake.log"
    submit = ["sbatch", "--wait", "--nodes=2", "--cpus-per-task=1", f"--output={log}"]
    done = launch.run(
        [*submit, "slurm/train.sh", str(tiny.config), "train.batch=9"], env=slurm.environment, timeout_s=240
    )
    assert done.returncode == 2, log.read_text()
    assert "train.batch = 9" in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_a_preempted_job_requeues_itself_and_ends_as_one_never_stopped(slurm: Cluster, tiny: Tiny) -> None:
    job = train(slurm, tiny, "preempted")
    slurm.ask("scancel", "--batch", "--signal=USR1", job.number)  # as B:USR1 before the limit
    job.wait_until(lambda: job.fact("Restarts") == "1")
    job.wait_until(lambda: job.start_again() or job.ended(), 400)
    assert job.fact("JobState") == "COMPLETED", job.output()
    alone = tiny.folder / "not-preempted"
    ranks.start(2, tiny.config, f"run.dir={alone}", "train.steps=400", "checkpoint.every=50").succeed(400)
    assert launch.history(job.folder) == launch.history(alone)
    assert launch.traced(job.folder) == launch.traced(alone)
    weights = [(place / "final" / "model.safetensors").read_bytes() for place in (job.folder, alone)]
    assert weights[0] == weights[1]
    assert not list(REPOSITORY.glob(f".unsee-stopped-{job.number}*"))


PLANT = """
import errno, os
if os.environ.get("SLURM_PROCID") == "1":
    from unsee_dist.supervision import phases
    before = phases.failpoint
    def failpoint(phase, step):
        before(phase, step)
        if (phase, step) == ("forward", 120) and not os.path.exists({flag!r}):
            open({flag!r}, "w").close()
            raise {raised}
    phases.failpoint = failpoint
"""


def planted(tiny: Tiny, name: str, raised: str) -> str:
    """A PYTHONPATH under which rank 1 raises in step 120, at the first start only."""
    site = tiny.folder / f"site-{name}"
    site.mkdir()
    (site / "sitecustomize.py").write_text(PLANT.format(flag=str(site / "planted"), raised=raised))
    return f"{site}{os.pathsep}{REPOSITORY}"


@pytest.mark.slow
def test_a_passing_fault_of_a_file_system_requeues_the_job(slurm: Cluster, tiny: Tiny) -> None:
    path = planted(tiny, "eio", "OSError(errno.EIO, 'planted')")
    job = submit(slurm, tiny, "eio", PYTHONPATH=path)
    job.wait_until(lambda: job.fact("Restarts") == "1")
    job.wait_until(lambda: job.start_again() or job.ended(), 400)
    assert job.fact("JobState") == "COMPLETED", job.everything()
    assert "planted" in job.output()
    assert "bug of unsee_dist" not in job.output()
    steps = [line["step"] for line in launch.lines(job.folder / "metrics.jsonl") if "loss" in line]
    assert steps == list(range(1, 401))


@pytest.mark.slow
def test_a_bug_ends_the_job_with_its_traceback(slurm: Cluster, tiny: Tiny) -> None:
    job = submit(slurm, tiny, "bug", PYTHONPATH=planted(tiny, "bug", "KeyError('planted')"))
    job.wait_until(job.ended, 240)
    assert job.fact("JobState") == "FAILED", job.everything()
    assert job.fact("Restarts") == "0"
    assert "KeyError: 'planted'" in job.output()
    assert "rank 1: this is a bug of unsee_dist" in job.output()


@pytest.mark.slow
def test_scancel_saves_and_ends(slurm: Cluster, tiny: Tiny) -> None:
    job = train(slurm, tiny, "cancelled", "train.steps=100000")
    job.cancel()
    assert job.fact("JobState") == "CANCELLED"
    saved = sorted((job.folder / "checkpoints").glob("step-*"))[-1]
    assert int(saved.name.removeprefix("step-")) >= job.last_step() - 50, job.output()


@pytest.mark.slow
def test_a_killed_rank_ends_the_job(slurm: Cluster, tiny: Tiny) -> None:
    job = train(slurm, tiny, "killed", "train.steps=100000")
    members = job.ranks("1")
    assert members
    for process in members:
        process.kill()
    job.wait_until(job.ended)
    assert job.fact("JobState") == "FAILED", job.output()
    assert job.fact("Restarts") == "0"


def test_train_sh_says_how_it_is_used() -> None:
    done = launch.run(["bash", "slurm/train.sh"])
    assert done.returncode == 2
    assert "usage: sbatch slurm/train.sh" in done.stderr


def test_scripts_are_executable() -> None:
    scripts: list[Path] = [*SCRIPTS.glob("*.sh"), *(REPOSITORY / "slurm").glob("*.sh")]
    assert len(scripts) >= 4
    assert all(os.access(script, os.X_OK) for script in scripts)
