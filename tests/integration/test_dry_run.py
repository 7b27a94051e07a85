"""A dry run says what the run then is: its steps, evaluations, checkpoints and the room of one; and it leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tiny import Tiny


def unsee(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "unsee_dist", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def test_a_dry_run_foretells_the_run(tiny: Tiny, tmp_path: Path) -> None:
    settings = (tiny.config, "run.dir=run", "train.steps=14", "checkpoint.keep=9")
    dry = unsee(tmp_path, "train", *settings, "--dry-run", "--json", "--ranks", 2)
    assert dry.returncode == 0, dry.stderr
    assert list(tmp_path.iterdir()) == []
    plan = json.loads(dry.stdout)
    derived = plan["derived"]
    assert (derived["steps"], derived["ranks"], derived["batch_a_rank"]) == (14, 2, 4)
    assert plan["settings"]["checkpoint.keep"] == "9"
    assert plan["time_s"]["step"] > 0
    assert any("2 ranks get 4 sentences each" in line for line in plan["advice"])
    assert any("ranks send" in line for line in plan["not_checked"])

    ran = unsee(tmp_path, "train", *settings)
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert sum("loss" in line for line in lines) == derived["steps"]
    assert sum("dev/std" in line for line in lines) == derived["evaluations"]
    checkpoints = sorted((tmp_path / "run/checkpoints").glob("step-*"))
    assert len(checkpoints) == derived["checkpoints"]
    tensors = sum(path.stat().st_size for path in checkpoints[0].glob("rank-*.safetensors"))
    assert 1.0 <= tensors / plan["disk_bytes"]["checkpoint"] < 1.05  # the names and shapes before the numbers
    whole = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert (
        whole < plan["disk_bytes"]["run"] * 1.5
    )  # a tiny encoder's tokenizer and card are as large as its weights


def test_a_check_says_the_same_without_trying_and_refuses_what_a_run_would(
    tiny: Tiny, tmp_path: Path
) -> None:
    check = unsee(tmp_path, "config", "check", tiny.config, "--ranks", 4)
    assert check.returncode == 0, check.stderr
    assert "batch a rank: 2 sentences on 4 ranks" in check.stdout
    assert "memory a rank, by formula" in check.stdout
    assert "not checked: seconds and peak memory" in check.stdout
    for command in (("config", "check"), ("train", "--dry-run")):
        wrong = unsee(tmp_path, *command, tiny.config, "--ranks", 3)
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert "train.batch = 8 cannot be split over 3 ranks. Use 6 or 9." in wrong.stderr
    more = ("--ranks", 3, "train.batch=7000", f"evaluate.sts={tmp_path / 'none.tsv'}")
    for command in (("config", "check"), ("train", "--dry-run")):
        wrong = unsee(tmp_path, *command, tiny.config, *more)
        assert wrong.returncode == 2
        assert "train.batch = 7000 cannot be split over 3 ranks" in wrong.stderr
        assert "none.tsv" in wrong.stderr, "one mistake has hidden another"
        large = unsee(tmp_path, *command, tiny.config, "train.batch=7000")
        assert (large.returncode, large.stdout) == (2, "")
        assert "train.batch = 7000 is more than the" in large.stderr
        crops = unsee(tmp_path, *command, tiny.config, "data.views=crop", "data.crop_tokens=8")
        assert (crops.returncode, crops.stdout) == (2, "")
        assert "data.views = crop needs records of at least 16 word pieces" in crops.stderr
    lost = unsee(tmp_path, "train", tiny.config, "--ranks", 3)
    assert lost.returncode == 2
    assert "--ranks 3 needs --dry-run" in lost.stderr
    assert list(tmp_path.iterdir()) == []
