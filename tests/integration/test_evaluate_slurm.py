"""slurm/evaluate.sh gives each job of an array its shard, and the job without an array all tasks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from integration.tiny import REPOSITORY

SCRIPT = REPOSITORY / "slurm" / "evaluate.sh"


def submit(folder: Path, *arguments: str, **slurm: str) -> subprocess.CompletedProcess[str]:
    """Run the script as a job would, with an srun that only starts its command."""
    srun = folder / "srun"
    srun.write_text('#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n')
    srun.chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    variables = kept | {"PATH": f"{folder}:{kept['PATH']}", "UNSEE": "echo"} | slurm
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("slurm", "more"),
    [({}, ""), ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}, " --shard 3/8")],
)
def test_an_array_deals_the_tasks_out(tmp_path: Path, slurm: dict[str, str], more: str) -> None:
    done = submit(tmp_path, "runs/mine", "--tier", "v1", **slurm)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"evaluate runs/mine --tier v1{more}"


def test_without_arguments_it_says_how(tmp_path: Path) -> None:
    done = submit(tmp_path)
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_it_fits_on_a_page() -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 60
