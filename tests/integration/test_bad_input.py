"""Every mistake of the user is one sentence, exit code 2 of every rank, no traceback and no hang."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from integration import tiny as launch
from integration.tiny import Tiny


def is_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2, and a message with these words and without a traceback."""
    printed = done.stderr
    assert done.returncode == 2, f"exit code {done.returncode}:\n{printed}"
    assert "Traceback" not in printed, printed
    assert all(word in printed for word in words), printed


def train(tiny: Tiny, *overrides: str) -> subprocess.CompletedProcess[str]:
    folder = tiny.folder / "bad"
    return launch.run(launch.command("unsee", 1, tiny.config, f"run.dir={folder}", *overrides))


@pytest.mark.parametrize("kind", ["missing", "empty", "binary"])
def test_prepare_refuses_what_is_no_text(kind: str, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    if kind == "empty":
        text.touch()
    if kind == "binary":
        text.write_bytes(bytes(range(256)) * 64)
    command = [str(launch.BIN / "unsee"), "prepare", str(text), "--out", str(tmp_path / "out")]
    is_sentence(launch.run(command), str(text))


def test_corpus_missing(tiny: Tiny) -> None:
    is_sentence(train(tiny, "data.shards=nowhere"), "data.shards = nowhere", "unsee prepare")


def test_corpus_empty(tiny: Tiny, tmp_path: Path) -> None:
    is_sentence(train(tiny, f"data.shards={tmp_path}"), f"data.shards = {tmp_path}", "unsee prepare")


def test_encoder_folder_missing(tiny: Tiny) -> None:
    is_sentence(train(tiny, "model.encoder=./nowhere"), "model.encoder = ./nowhere", "Write")


def test_encoder_without_tokenizer(tiny: Tiny, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny.encoder / name, tmp_path)
    is_sentence(train(tiny, f"model.encoder={tmp_path}"), "lacks a tokenizer", "tokenizer.json")


def test_hub_name_without_network(tiny: Tiny) -> None:
    is_sentence(train(tiny, "model.encoder=nobody/nothing"), "model.encoder = nobody/nothing", "hub", "Write")


def test_unknown_objective(tiny: Tiny) -> None:
    is_sentence(train(tiny, "objective.name=vicregg"), "objective.name = vicregg", "did you mean vicreg?")


def test_fp16_needs_a_gpu_at_stage_3_too(tiny: Tiny) -> None:
    is_sentence(
        train(tiny, "parallel.zero=3", "parallel.precision=fp16"), "parallel.precision = fp16", "Write bf16"
    )


def by_hand(
    tiny: Tiny,
    port: int,
    configs: tuple[Path, Path],
    *overrides: str,
    folders: tuple[Path, Path] | None = None,
) -> list[subprocess.CompletedProcess[str]]:
    """Two ranks without a launcher: nothing but they themselves can end them. Each may have its own working folder."""
    started = []
    for rank, config in enumerate(configs):
        variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        script = str(launch.REPOSITORY / launch.SCRIPT)
        command = [
            sys.executable,
            script,
            "--config",
            str(config),
            f"run.dir={tiny.folder / 'bad'}",
            *overrides,
        ]
        where = folders[rank] if folders else launch.REPOSITORY
        started.append(launch.start(command, cwd=where, env=launch.environment(**variables)))
    return [launch.finish(process) for process in started]


def test_batch_that_does_not_divide_by_the_ranks(tiny: Tiny) -> None:
    first, second = by_hand(tiny, launch.free_port(), (tiny.config, tiny.config), "train.batch=9")
    is_sentence(first, "train.batch = 9", "2 ranks")
    is_sentence(second)


@pytest.mark.slow
def test_port_in_use(tiny: Tiny) -> None:
    """The holder of the port listens and never answers: neither rank may wait for it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        for done in by_hand(tiny, port, (tiny.config, tiny.config)):
            is_sentence(done, f"MASTER_PORT = {port} is in use", "Choose another")


def test_config_that_one_rank_does_not_see(tiny: Tiny) -> None:
    missing = tiny.folder / "nowhere.yaml"
    first, second = by_hand(tiny, launch.free_port(), (tiny.config, missing))
    is_sentence(first, "nowhere.yaml")
    is_sentence(second)


def test_encoder_that_rank_0_does_not_see(tiny: Tiny, tmp_path: Path) -> None:
    """`./encoder` is there in the working folder of rank 1 only; rank 0 reads it for all."""
    folders, configs = (tmp_path, tiny.folder), (tiny.config, tiny.config)
    first, second = by_hand(tiny, launch.free_port(), configs, "model.encoder=./encoder", folders=folders)
    is_sentence(first, "model.encoder = ./encoder", "Write")
    is_sentence(second)


def test_torchrun_ends_when_its_ranks_have_said_why(tiny: Tiny) -> None:
    done = launch.run(launch.command("torchrun", 2, tiny.config, "train.batch=9"))
    assert done.returncode != 0
    assert "train.batch = 9" in done.stderr
    assert 'File "' not in done.stderr.partition("train.batch = 9")[0]
