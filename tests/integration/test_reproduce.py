"""An experiment end to end by the command, on a tiny encoder: trained, killed, continued, scored, and its page written."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from integration import tiny as launch
from integration.evaluating import write_tasks
from integration.tiny import Tiny
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

ARMS = ("unsee-vicreg", "unsee-barlow", "unsee-corinfomax", "byol", "simcse-fair")


def command(tiny: Tiny, folder: Path, *more: str) -> list[str]:
    settings = [f"model.encoder={tiny.encoder}", f"data.shards={tiny.shards}", "model.max_tokens=16"]
    settings += [
        "projector.width=2",
        "train.batch=8",
        "train.steps=6",
        "evaluate.every=3",
        "checkpoint.every=1",
    ]
    settings += [f"evaluate.sts={folder / 'tasks' / 'similar.tsv'}", "--tasks", str(folder / "tasks")]
    given = ["objectives", "--small", "--out", str(folder / "out"), *settings, *more]
    return [sys.executable, "-m", "unsee_dist", "reproduce", *given]


def test_an_experiment_by_one_command_which_continues_what_was_killed(tiny: Tiny, tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks")
    env = launch.environment(PYTHONPATH=str(launch.REPOSITORY))
    begun = launch.start(command(tiny, tmp_path, "--seeds", "1"), cwd=tmp_path, env=env)
    second = tmp_path / "out" / "runs" / "unsee-barlow-0" / "metrics.jsonl"
    until = time.monotonic() + 300
    while not second.exists():
        assert begun.poll() is None, begun.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)
    launch.kill(begun)

    done = launch.succeed(command(tiny, tmp_path, "--seeds", "1"), cwd=tmp_path, env=env, timeout_s=500)
    first = (tmp_path / "out" / "logs" / "unsee-vicreg-0.log").read_text(encoding="utf-8")
    assert first.count("6 steps of 8 sentences") == 1, "a complete run was started again"
    found = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert [run["arm"] for run in found["runs"]] == list(ARMS)
    assert {run["steps"] for run in found["runs"]} == {6}
    assert "similar" in found["scores"]
    assert "intents" in found["scores"]
    for arm in ARMS:
        assert len(found["arms"][arm]["scores"]["similar"]) == 1
    assert found["headline"] in done.stderr
    assert "One seed" in found["headline"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert all(arm in page for arm in ARMS)
    assert not (tmp_path / "evaluations").exists(), "scores of the untrained encoder belong to the experiment"

    again = launch.succeed(command(tiny, tmp_path, "--seeds", "1"), cwd=tmp_path, env=env, timeout_s=300)
    assert json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8")) == found
    assert "1/5" not in again.stderr
    runs = tmp_path / "out" / "runs"
    assert len(list(runs.glob("*/final"))) == len(ARMS)
    assert list(runs.glob("*/checkpoints/step-*")) == [], "a hundred runs would fill a disk"


def test_ctrl_c_in_a_terminal_leaves_a_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    """Which goes to the whole process group: to the command, and to the training that it has started."""
    write_tasks(tmp_path / "tasks")
    settings = [text for text in command(tiny, tmp_path, "--seeds", "1") if text != "train.steps=6"]
    env = launch.environment(PYTHONPATH=str(launch.REPOSITORY))
    begun = launch.start([*settings, "train.steps=4000", "checkpoint.every=2000"], cwd=tmp_path, env=env)
    run = tmp_path / "out" / "runs" / "unsee-vicreg-0"
    until = time.monotonic() + 300
    while not (run / "metrics.jsonl").exists() or (run / "metrics.jsonl").read_text().count("\n") < 4:
        assert begun.poll() is None, begun.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)
    os.killpg(begun.pid, signal.SIGINT)
    said = begun.communicate(timeout=120)
    assert begun.returncode == 75, said
    assert len(list((run / "checkpoints").glob("step-*"))) == 1


def test_a_mistake_that_every_run_would_repeat_ends_it_at_once(tiny: Tiny, tmp_path: Path) -> None:
    done = command(tiny, tmp_path, f"data.shards={tmp_path / 'nowhere'}")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "similar.tsv").write_text(
        "sentence1\tsentence2\tscore\na b\ta c\t1\n", encoding="utf-8"
    )
    done = [text for text in done if text not in ("--tasks", str(tmp_path / "tasks"))]
    done = [text for text in done if text != f"data.shards={tiny.shards}"]
    env = launch.environment(PYTHONPATH=str(launch.REPOSITORY))
    failed = launch.run(done, cwd=tmp_path, env=env)
    assert failed.returncode == 2, failed.stderr
    assert "ended before its first step" in failed.stderr
    assert "nowhere" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert len(list((tmp_path / "out" / "logs").iterdir())) == 1


PEERS = ("unsee-vicreg", "st-simcse", "st-tsdae", "st-tsdae-mean", "st-ct")


def test_peers_are_trained_by_their_own_losses_killed_continued_and_evaluated(
    tiny: Tiny, tmp_path: Path
) -> None:
    pytest.importorskip("nltk")
    pytest.importorskip("accelerate")
    write_tasks(tmp_path / "tasks")
    settings = ["projector.width=2", "train.steps=60", "evaluate.every=20", "model.max_tokens=16"]
    settings += [f"model.encoder={tiny.encoder}", f"data.shards={tiny.shards}"]
    settings += [f"evaluate.sts={tmp_path / 'tasks' / 'similar.tsv'}", "--tasks", str(tmp_path / "tasks")]
    out = tmp_path / "out"
    words = [sys.executable, "-m", "unsee_dist", "reproduce", "peers", "--small", "--seeds", "1"]
    words += ["--out", str(out), *settings]
    env = launch.environment(
        PYTHONPATH=os.pathsep.join([str(launch.REPOSITORY), os.environ.get("PYTHONPATH", "")])
    )
    begun = launch.start(words, cwd=tmp_path, env=env)
    until = time.monotonic() + 300
    while not (out / "runs" / "st-simcse-0" / "metrics.jsonl").exists():
        assert begun.poll() is None, begun.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)
    launch.kill(begun)

    launch.succeed(words, cwd=tmp_path, env=env, timeout_s=550)
    ours = (out / "logs" / "unsee-vicreg-0.log").read_text(encoding="utf-8")
    assert ours.count("60 steps of 32 sentences") == 1, "a complete run was started again"
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert [run["arm"] for run in found["runs"]] == list(PEERS)
    page = (out / "report.html").read_text(encoding="utf-8")
    records = {}
    for arm in PEERS[1:]:
        folder = out / "runs" / f"{arm}-0"
        records[arm] = json.loads((folder / "peer.json").read_text(encoding="utf-8"))
        assert records[arm]["steps"] > 0
        assert records[arm]["trained_s"] >= records[arm]["seconds"]
        # Random weights give [CLS], which tsdae reads, nearly one direction: within rounding of what is called collapsed.
        collapsed = arm == "st-tsdae" and next(run for run in found["runs"] if run["arm"] == arm)["collapsed"]
        assert len(found["arms"][arm]["scores"]["similar"]) == (0 if collapsed else 1)
        assert arm in page
        trained, untrained = (
            load_file(path / "model.safetensors") for path in (folder / "final", tiny.encoder)
        )
        moved = [name for name in untrained if not torch.equal(trained[name], untrained[name])]
        assert len(moved) > len(untrained) / 2, f"{arm} has trained nothing"
    assert len({each["digest"] for each in records.values()}) == len(records)

    launch.succeed(words, cwd=tmp_path, env=env, timeout_s=300)
    for arm, record in records.items():
        assert json.loads((out / "runs" / f"{arm}-0" / "peer.json").read_text(encoding="utf-8")) == record


def test_arms_from_a_random_and_the_given_encoder(tiny: Tiny, tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks")
    settings = [
        f"model.encoder={tiny.encoder}",
        f"data.shards={tiny.shards}",
        "model.max_tokens=16",
        "train.batch=8",
    ]
    settings += ["projector.width=2", "train.steps=4", "evaluate.every=2"]
    settings += [f"evaluate.sts={tmp_path / 'tasks' / 'similar.tsv'}", "--out", str(tmp_path / "out")]
    words = [sys.executable, "-m", "unsee_dist", "reproduce", "start", "--small", "--seeds", "1", *settings]
    launch.succeed(
        words, cwd=tmp_path, env=launch.environment(PYTHONPATH=str(launch.REPOSITORY)), timeout_s=580
    )
    found = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert len(found["arms"]) == 12
    before = {name: arm["before"]["dev/sts"] for name, arm in found["arms"].items()}
    assert before["random-default"] != before["given-default"]
    assert found["sentences"][0].startswith("From random: there is nothing to claim with default")
