"""slurm/evaluate.sh on a real Slurm cluster: an array of jobs evaluates the parts, and a job after it prints the whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from integration import tiny as launch
from integration.evaluating import write_model, write_tasks
from integration.tiny import BIN, Tiny

SCRIPT = launch.REPOSITORY / "slurm" / "evaluate.sh"


def submit(cluster: dict[str, str], place: Path, *options: str) -> str:
    """A job of slurm/evaluate.sh, submitted in `place`: its number."""
    order = ["sbatch", "--parsable", "--cpus-per-task=1", *options, str(SCRIPT)]
    evaluated = ["model", "--tasks", "tasks", "--json"]
    return launch.succeed(
        order + evaluated, env=cluster | {"UNSEE": str(BIN / "unsee")}, cwd=place, timeout_s=400
    ).stdout.strip()


def scores(log: Path) -> dict[str, float]:
    """By task, from the JSON at the end of a job's output."""
    output = log.read_text()
    found = json.loads(output[output.index("{\n") :])
    return {record["task"]: record["score"] for record in found["tasks"]}


@pytest.mark.slow
@pytest.mark.timeout(1800)  # many processes that each import torch and mteb
def test_an_array_of_jobs_judges_what_one_process_judges(
    cluster: dict[str, str], tiny: Tiny, tmp_path: Path
) -> None:
    write_tasks(tmp_path / "tasks")
    write_model(tmp_path / "model", tiny)
    array = submit(cluster, tmp_path, "--array=1-3", "--output=part-%a.log")
    whole = submit(cluster, tmp_path, f"--dependency=afterok:{array}", "--wait", "--output=whole.log")
    output = (tmp_path / "whole.log").read_text()
    parts = [scores(tmp_path / f"part-{place}.log") for place in (1, 2, 3)]
    assert [len(part) for part in parts] == [3, 2, 2], f"{array}, {whole}"
    assert "1/7" not in output, "the last job evaluated a task again"
    together = {task: score for part in parts for task, score in part.items()}
    assert scores(tmp_path / "whole.log") == together

    write_model(tmp_path / "alone" / "model", tiny)
    alone = [str(BIN / "unsee"), "evaluate", "model", "--tasks", "../tasks", "--json"]
    done = launch.succeed(alone, cwd=tmp_path / "alone", timeout_s=240)
    one = {record["task"]: record["score"] for record in json.loads(done.stdout)["tasks"]}
    assert one == pytest.approx(together, abs=1e-6)
