"""Laws 1 and 2 over launchers, law 3 over a kill: whoever starts the ranks, the run is the same run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from integration import tiny as launch
from integration.tiny import Tiny


def weights(folder: Path) -> bytes:
    return (folder / "final" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def alone(tiny: Tiny) -> Path:
    """The run that the others must equal: one process of plain python."""
    folder = tiny.folder / "python"
    launch.succeed(launch.command("python", 1, tiny.config, f"run.dir={folder}"))
    return folder


def same_run(folder: Path, expected: Path) -> None:
    assert launch.losses(folder) == pytest.approx(launch.losses(expected), rel=1e-4)
    assert list(launch.losses(folder)) == [1, 2, 3, 4, 5, 6]
    assert launch.traced(folder) == launch.traced(expected)


def loads(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    assert SentenceTransformer(str(folder / "final"), device="cpu").encode(["the old river ."]).shape == (
        1,
        32,
    )


@pytest.mark.parametrize(("launcher", "ranks"), [("unsee", 1), ("torchrun", 2), ("deepspeed", 2)])
def test_every_launcher_makes_the_same_run(launcher: str, ranks: int, tiny: Tiny, alone: Path) -> None:
    folder = tiny.folder / launcher
    launch.succeed(launch.command(launcher, ranks, tiny.config, f"run.dir={folder}"))
    same_run(folder, alone)
    assert len(list((folder / "trace").iterdir())) == ranks
    loads(folder)


NO_SSH = ("--no_ssh", "--node_rank", "0", "--master_addr", "127.0.0.1")


@pytest.mark.slow
def test_deepspeed_reads_a_hostfile_of_this_host(tiny: Tiny, alone: Path) -> None:
    """Without ssh, as --no_ssh has it: the same command on every host with its own --node_rank."""
    hostfile, folder = tiny.folder / "hostfile", tiny.folder / "hostfile-run"
    hostfile.write_text("localhost slots=2\n", encoding="utf-8")
    command = launch.command("deepspeed", 2, tiny.config, f"run.dir={folder}")
    launch.succeed([*command[:1], "--hostfile", str(hostfile), *NO_SSH, *command[3:]])
    same_run(folder, alone)
    assert len(list((folder / "trace").iterdir())) == 2


def test_the_same_command_again_says_that_the_run_is_complete_and_changes_nothing(
    tiny: Tiny, alone: Path
) -> None:
    metrics, model = (alone / "metrics.jsonl").read_bytes(), weights(alone)
    again = [*launch.command("python", 1, tiny.config, f"run.dir={alone}"), "--local_rank=0"]
    done = launch.succeed(again)
    assert "is complete, nothing to do: 6 of 6 steps" in done.stderr
    assert (alone / "metrics.jsonl").read_bytes() == metrics
    assert weights(alone) == model


@pytest.mark.slow
def test_killed_and_started_again_equals_never_killed(tiny: Tiny) -> None:
    longer = ("model.dropout=0.1", "train.steps=400", "checkpoint.every=20", "evaluate.every=100")
    whole, cut = tiny.folder / "whole", tiny.folder / "cut"
    launch.succeed(launch.command("torchrun", 2, tiny.config, f"run.dir={whole}", *longer))
    command = launch.command("torchrun", 2, tiny.config, f"run.dir={cut}", *longer)
    process = launch.start(command)
    deadline = time.monotonic() + 120
    while not (cut / "checkpoints" / "step-00000060").is_dir():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no checkpoint of step 60 within 120 s"
        time.sleep(0.01)
    launch.kill(process)
    assert not (cut / "final").exists(), "the kill came too late: the run had ended"
    launch.succeed(launch.command("torchrun", 2, tiny.config, f"run.dir={cut}", *longer))
    assert launch.history(cut) == launch.history(whole)
    assert launch.traced(cut) == launch.traced(whole)
    assert weights(cut) == weights(whole)
