"""Patience: a run ends early, is complete then, and is the run without patience as far as it goes; killed or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import Tiny, corpus

# A rate this small changes no score in its last digit that is compared: only the first evaluation is a new best.
SETTINGS = (
    "train.steps=30",
    "train.lr=1e-12",
    "evaluate.sts=pairs.tsv",
    "evaluate.every=3",
    "checkpoint.every=3",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sentences = corpus(40)
    rows = [
        f"{a}\t{b}\t{n % 5}" for n, (a, b) in enumerate(zip(sentences[::2], sentences[1::2], strict=True))
    ]
    (tmp_path / "pairs.tsv").write_text("\n".join(["sentence1\tsentence2\tscore", *rows]) + "\n")
    return tmp_path


def train(
    folder: Path, tiny: Tiny, run: str, *settings: str, ranks: int = 1, **more: str
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | more
    launcher = (
        ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port", "29791"]
        if ranks > 1
        else []
    )
    command = [
        sys.executable,
        *launcher,
        "-m",
        "unsee_dist.train",
        "--config",
        str(tiny.config),
        f"run.dir={run}",
    ]
    return subprocess.run(
        [*command, *SETTINGS, *settings], capture_output=True, text=True, cwd=folder, env=environment
    )


def lines(run: Path) -> list[dict[str, float]]:
    """Without times and rates, which no run has twice."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    moving = ("time", "sentences_per_s", "tokens_per_s", "wait")
    return [{key: value for key, value in line.items() if key not in moving} for line in found]


@pytest.mark.slow
def test_a_run_without_a_better_score_ends_early_and_more_patience_continues_it(
    folder: Path, tiny: Tiny
) -> None:
    whole = train(folder, tiny, "whole")
    assert whole.returncode == 0, whole.stderr
    ended = train(folder, tiny, "early", "evaluate.patience=2")
    assert ended.returncode == 0, ended.stderr
    early, all_of_it = lines(folder / "early"), lines(folder / "whole")
    last = int(early[-1]["step"])
    assert f"ended early after step {last} of 30: 2 evaluations in a row" in ended.stderr
    assert last < 30
    assert early == all_of_it[: len(early)]
    assert (folder / "early/final").is_dir()

    again = train(folder, tiny, "early", "evaluate.patience=2")
    assert "is complete, nothing to do" in again.stderr
    assert lines(folder / "early") == early
    longer = train(folder, tiny, "early")
    assert longer.returncode == 0, longer.stderr
    assert lines(folder / "early") == all_of_it

    killed = train(folder, tiny, "killed", "evaluate.patience=2", UNSEE_KILL_AT=f"save {last} 0")
    assert killed.returncode == -9
    resumed = train(folder, tiny, "killed", "evaluate.patience=2")
    assert f"ended early after step {last} of 30" in resumed.stderr
    assert lines(folder / "killed") == early


@pytest.mark.slow
def test_all_ranks_end_at_the_same_step(folder: Path, tiny: Tiny) -> None:
    ended = train(folder, tiny, "two", "evaluate.patience=1", "data.trace=true", ranks=2)
    assert ended.returncode == 0, ended.stderr
    last = int(lines(folder / "two")[-1]["step"])
    assert f"ended early after step {last} of 30" in ended.stderr
    traces = [(folder / "two/trace" / f"rank-{rank}.jsonl").read_text().splitlines() for rank in (0, 1)]
    assert [json.loads(trace[-1])["step"] for trace in traces] == [last, last]


def test_patience_without_a_score_is_refused(folder: Path, tiny: Tiny) -> None:
    refused = train(folder, tiny, "none", "evaluate.patience=2", "evaluate.sts=null")
    assert refused.returncode == 2
    assert "evaluate.patience = 2" in refused.stderr
    assert "waits for a better score, and there is none" in refused.stderr
