"""docs/tutorial-cluster.md, block by block as it stands, in a plain shell and a folder that has nothing but the wheel.

Two things are there already, because a test has no network: the packages that the wheel needs, which pip finds, and
"bert-base-uncased" in the Hub's cache, which here is a smaller BERT.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from documentation import blocks
from documentation.test_start_block import cache_encoder
from integration import wheel
from integration.tiny import REPOSITORY, lines
from slurm_jobs import need_slurm

from unsee_dist.distributed.engine import cpu_computes_bf16

PAGE = REPOSITORY / "docs" / "tutorial-cluster.md"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700)]


@pytest.fixture
def machine(tmp_path: Path, shared: Path) -> dict[str, str]:
    """The environment of a stranger: nothing of this one but where its packages are."""
    need_slurm()
    wheel.link_others(tmp_path / "packages")
    cache_encoder(tmp_path / "home" / "hub", shared / "models" / "wiki-bert-mini")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "mlflow").symlink_to(Path(sys.executable).parent / "mlflow")
    (programs / "python3").symlink_to(Path(sys.executable).resolve())
    found = {
        "PATH": f"{programs}:/usr/sbin:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": str(tmp_path / "packages"),
    }
    found |= {"HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "home"), "LANG": "C.UTF-8"}
    found |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PIP_NO_INDEX": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return found | {name: os.environ[name] for name in ("OPENBLAS_CORETYPE",) if name in os.environ}


@pytest.fixture
def project() -> Iterator[Path]:
    """A short name: the sockets of Slurm's daemons lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="hour-"))
    yield folder
    shutil.rmtree(folder)


def test_the_hour_as_it_is_written(project: Path, tmp_path: Path, machine: dict[str, str]) -> None:
    (tmp_path / "built").mkdir()
    shutil.move(wheel.build_wheel(tmp_path / "built"), project)
    script = "\n".join(blocks.blocks(PAGE))
    assert script.count("\n") > 25
    if not cpu_computes_bf16():  # as the page says there
        script = script.replace("unsee-barlow ", "unsee-barlow parallel.precision=fp32 ")
    done = _run(script, project, machine)
    assert done.returncode == 0, done.stdout + done.stderr
    _looked_at_both_nodes(done.stdout)
    _trained_on_both_nodes(project, (project / "job.out").read_text())
    assert '"experiments"' in done.stdout
    assert '"name": "unsee"' in done.stdout.partition('"experiments"')[2]
    assert "<html" in (project / "runs" / "mine" / "report.html").read_text()[:200]
    assert done.stdout.splitlines()[-1] == "(1, 256)"
    assert not (project / "slurm-local").exists()
    print(done.stdout, done.stderr)


def _run(script: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """As pasted: through the shell's input, which no command of the page may take. Slurm is stopped after a failure, too."""
    try:
        return subprocess.run(
            ["bash", "-ex"],
            input=script,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=2500,
        )
    finally:
        if (folder / "slurm-local").exists():
            stop = REPOSITORY / "cluster" / "slurm-local" / "stop.sh"
            subprocess.run([stop, folder / "slurm-local"], timeout=180, check=False)


def _looked_at_both_nodes(sentence: str) -> None:
    assert "2 ranks on 2 hosts" in sentence, sentence
    assert "all-reduce" in sentence
    assert ", 0 FAIL" in sentence


def _trained_on_both_nodes(project: Path, log: str) -> None:
    run = project / "runs" / "mine"
    scores = [line for line in lines(run / "metrics.jsonl") if "dev/mrr" in line]
    assert [line["step"] for line in scores] == [0, 10, 20]
    assert {"best", "final", "checkpoints", "config.yaml"} <= {path.name for path in run.iterdir()}
    [start] = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert start["ranks"] == 2, start
    assert "Traceback" not in log
