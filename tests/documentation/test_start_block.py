"""The Start block of README.md, as it stands, in a plain shell and a fresh copy of the repository.

Two things are there already, because a test has no network: the packages of `.venv`, which `make` finds up to date, and
"bert-base-uncased" in the Hub's cache, which here is a smaller BERT.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from integration.tiny import REPOSITORY
from integration.wheel import copy_repository

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1600)]  # 90 s of processor time

COMMIT = "0" * 40


def start_block() -> str:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n## Start\n")[2].partition("\n## ")[0]
    [block] = re.findall(r"^```bash\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return block


def make_environment(clone: Path) -> None:
    """.venv with an editable installation of the copy, and of everything else in this environment."""
    venv.create(clone / ".venv", with_pip=False, symlinks=True)
    [packages] = (clone / ".venv").glob("lib/python*/site-packages")
    (packages / "clone.pth").write_text(f"{clone}\n" + "\n".join(site.getsitepackages()) + "\n")
    program = clone / ".venv" / "bin" / "unsee"
    program.write_text(
        f"#!{clone}/.venv/bin/python\nfrom unsee_dist.cli import main\nif __name__ == '__main__':\n    main()\n"
    )
    program.chmod(0o755)
    (clone / ".venv" / "stamp").touch()


def cache_encoder(hub: Path, encoder: Path) -> None:
    """A folder as the Hub's bert-base-uncased, as huggingface_hub keeps a download."""
    repository = hub / "models--bert-base-uncased"
    shutil.copytree(encoder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)


def test_the_start_block_runs_as_it_stands(tmp_path: Path, shared: Path) -> None:
    clone, home = tmp_path / "unsee_dist", tmp_path / "home"
    copy_repository(clone)
    make_environment(clone)
    cache_encoder(home / "hub", shared / "models" / "wiki-bert-mini")
    python = Path(sys.executable).resolve().parent
    environment = {"PATH": f"{python}:/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "HF_HOME": str(home)}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"}
    environment |= {name: os.environ[name] for name in ("OPENBLAS_CORETYPE",) if name in os.environ}
    done = subprocess.run(
        ["sh", "-ex"],
        input=start_block(),
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = clone / "runs" / "mine"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["dev/mrr"] for line in lines if "dev/mrr" in line}
    assert list(scores) == [0, 20, 40]
    assert scores[40] > scores[0], scores
    assert {"best", "final", "checkpoints", "config.yaml"} <= {path.name for path in run.iterdir()}
    assert done.stdout.splitlines()[-1] == "(1, 256)"
    assert "what to write" not in done.stderr
    print(done.stdout, done.stderr)
