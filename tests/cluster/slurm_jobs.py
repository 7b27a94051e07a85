"""Slurm on this machine, and jobs of slurm/train.sh on the cluster of the tests: submitted, watched, struck."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from integration import tiny as launch
from integration.tiny import REPOSITORY, Tiny

SCRIPTS = REPOSITORY / "cluster" / "slurm-local"


def missing() -> list[str]:
    return [
        name for name in ("slurmctld", "slurmd", "sbatch", "munged", "mungekey") if shutil.which(name) is None
    ]


def need_slurm() -> None:
    """Skip the test where Slurm is not, and cannot be installed."""
    if os.geteuid() != 0:
        pytest.skip("needs root: slurmd starts the tasks of others")
    if missing():
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "slurm-wlm", "munge"]
        with contextlib.suppress(FileNotFoundError):  # no Debian: said by the skip
            subprocess.run(["apt-get", "update"], capture_output=True, timeout=300, check=False)
            subprocess.run(install, capture_output=True, timeout=600, check=False)
    if missing():
        pytest.skip(
            f"needs Slurm: {', '.join(missing())} could not be installed (apt-get install slurm-wlm munge)"
        )


@dataclass(frozen=True)
class Cluster:
    """`environment` reaches it; its daemons' files are in `folder`."""

    folder: Path
    environment: dict[str, str]

    def ask(self, *command: str) -> str:
        return launch.run(list(command), env=self.environment).stdout

    def take_down(self, node: str) -> None:
        os.kill(int((self.folder / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)

    def bring_back(self, node: str) -> None:
        launch.succeed(["slurmd", "-N", node], env=self.environment)

    def clear(self) -> None:
        """End every job, and give them a minute for it."""
        until = time.monotonic() + 60
        for number in self.ask("squeue", "--noheader", "--format=%A").split():
            self.ask("scancel", number)
        while self.ask("squeue", "--noheader") and time.monotonic() < until:
            time.sleep(0.5)

    def miss_nodes_after(self, seconds: int) -> None:
        """Slurm's SlurmdTimeout: a node that is silent for so long is down."""
        conf = self.folder / "slurm.conf"
        kept = [line for line in conf.read_text().splitlines() if not line.startswith("SlurmdTimeout=")]
        conf.write_text("\n".join([*kept, f"SlurmdTimeout={seconds}"]) + "\n")
        launch.succeed(["scontrol", "reconfigure"], env=self.environment)


@dataclass(frozen=True)
class Job:
    """A submitted slurm/train.sh."""

    cluster: Cluster
    number: str
    folder: Path
    log: Path

    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else "no log"

    def fact(self, name: str) -> str:
        """JobState, Restarts, ...; GONE for a job that Slurm has forgotten."""
        shown = self.cluster.ask("scontrol", "show", "job", self.number)
        return next((word.split("=")[1] for word in shown.split() if word.startswith(f"{name}=")), "GONE")

    def ended(self) -> bool:
        return self.fact("JobState") not in ("PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED")

    def start_again(self) -> None:
        """Slurm holds a requeued job back for two minutes: here only until the end of the start before has been
        reported, which it would take for the end of the new one, and its credential has been revoked, by the second."""
        logs = "".join(log.read_text() for log in self.cluster.folder.glob("slurmd-n*.log"))
        reported = logs.count(f"[{self.number}.batch] done with job")
        if self.fact("JobState") == "PENDING" and reported >= int(self.fact("Restarts")):
            time.sleep(3)
            self.cluster.ask("scontrol", "update", f"jobid={self.number}", "StartTime=now")

    def last_step(self) -> int:
        """Of metrics.jsonl; 0 when no step has been taken."""
        path = self.folder / "metrics.jsonl"
        lines = launch.lines(path) if path.exists() and path.read_text().endswith("\n") else []
        return max((line["step"] for line in lines if "loss" in line), default=0)

    def wait_until(self, true: Callable[[], bool], timeout_s: float = 500) -> None:
        until = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < until, self.everything()
            time.sleep(0.5)

    def everything(self) -> str:
        """For a failure's message: the job, its log, the end of Slurm's."""
        shown = self.cluster.ask("scontrol", "show", "job", self.number)
        daemons = (self.cluster.folder / "slurmctld.log").read_text().splitlines()[-30:]
        return "\n".join([shown, self.output(), *daemons])

    def cancel(self) -> None:
        self.cluster.ask("scancel", self.number)
        self.wait_until(self.ended)

    def ranks(self, rank: str) -> list[psutil.Process]:
        """The processes of a rank: the one that slurmstepd started, and what it started."""
        return [p for p in psutil.process_iter(["cmdline", "environ", "name"]) if self._is(p, rank)]

    def _is(self, process: psutil.Process, rank: str) -> bool:
        environment = process.info["environ"] or {}
        python = "unsee_dist.train" in (process.info["cmdline"] or []) and process.info["name"] != "srun"
        return python and (environment.get("SLURM_JOB_ID"), environment.get("SLURM_PROCID")) == (
            self.number,
            rank,
        )

    def kill_stepd(self, rank: str) -> None:
        """SIGKILL to the slurmstepd of a rank of the step (not of the batch script)."""
        parents = {process.ppid() for process in self.ranks(rank)}
        name = f"slurmstepd: [{self.number}.0]"  # one argument or two, as psutil takes a renamed process
        stepds = [p for p in map(psutil.Process, parents) if " ".join(p.cmdline()).strip() == name]
        assert len(stepds) == 1, [p.cmdline() for p in map(psutil.Process, parents)]
        stepds[0].kill()


def submit(cluster: Cluster, tiny: Tiny, name: str, *overrides: str, nodes: int = 2, **variables: str) -> Job:
    """A job that takes a while."""
    folder, log = tiny.folder / name, tiny.folder / f"{name}.log"
    order = ["sbatch", "--parsable", f"--nodes={nodes}", "--cpus-per-task=1", f"--output={log}"]
    arguments = [str(tiny.config), f"run.dir={folder}", "train.steps=400", "checkpoint.every=50", *overrides]
    done = launch.run([*order, "slurm/train.sh", *arguments], env=cluster.environment | variables)
    assert done.returncode == 0, done.stderr
    return Job(cluster, done.stdout.strip(), folder, log)


def train(cluster: Cluster, tiny: Tiny, name: str, *overrides: str) -> Job:
    """A job on two nodes that has taken a step."""
    job = submit(cluster, tiny, name, *overrides)
    job.wait_until(lambda: job.last_step() > 0)
    return job
