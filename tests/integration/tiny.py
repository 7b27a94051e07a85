"""A corpus, an encoder and a configuration made by rule, small enough to train in a second; and commands on them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SCRIPT = "unsee_dist/train.py"

THINGS = [
    "river",
    "house",
    "garden",
    "teacher",
    "engine",
    "letter",
    "window",
    "forest",
    "machine",
    "bridge",
    "doctor",
    "island",
    "harbour",
    "mountain",
]
KINDS = [
    "old",
    "quiet",
    "bright",
    "narrow",
    "heavy",
    "distant",
    "famous",
    "broken",
    "wooden",
    "early",
    "green",
]
DEEDS = ["follows", "carries", "repairs", "remembers", "crosses", "watches", "builds", "forgets"]
PLACES = ["near", "behind", "above", "beyond", "without", "inside"]
WORDS = ["the", "a", ".", *THINGS, *KINDS, *DEEDS, *PLACES]


@dataclass(frozen=True)
class Tiny:
    """Paths of what `make` wrote. `config`: 6 steps of 8 sentences, fp32, ZeRO-2, no dropout, no MLflow."""

    folder: Path
    encoder: Path
    shards: Path
    config: Path


def make(folder: Path, sentences: int = 2000) -> Tiny:
    """Everything a run needs, below `folder`."""
    from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare

    tiny = Tiny(folder, folder / "encoder", folder / "shards", folder / "tiny.yaml")
    text = folder / "sentences.txt"
    text.write_text("\n".join(corpus(sentences)) + "\n", encoding="utf-8")
    prepare([str(text)], tiny.shards, PrepareSettings(shard_sentences=1024))
    write_encoder(tiny.encoder)
    write_config(tiny)
    return tiny


def corpus(count: int) -> list[str]:
    """Distinct sentences: the old river follows a bright garden near the house ."""
    rng = random.Random(0)
    sentences: dict[str, None] = {}
    while len(sentences) < count:
        parts = ["the", rng.choice(KINDS), rng.choice(THINGS), rng.choice(DEEDS), "a", rng.choice(KINDS)]
        parts += [rng.choice(THINGS), rng.choice(PLACES), "the", rng.choice(THINGS), "."]
        sentences[" ".join(parts if rng.random() < 0.7 else [*parts[:7], "."])] = None
    return list(sentences)


def write_encoder(folder: Path) -> None:
    """BERT of 2 layers and width 32, seeded, with a tokenizer that knows the corpus's words."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {word: place for place, word in enumerate([*special, *WORDS])}
    BertTokenizer(vocab=vocab, model_max_length=32).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(vocab),
            max_position_embeddings=32,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
        )
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)


def write_config(tiny: Tiny) -> None:
    settings = {
        "extends": "base.yaml",
        "model": {"encoder": str(tiny.encoder), "max_tokens": 16, "dropout": 0},
        "projector": {"width": 2},
        "data": {"shards": str(tiny.shards), "workers": 0, "trace": True},
        "train": {"batch": 8, "steps": 6, "lr": 1e-3},
        "parallel": {"zero": 2, "precision": "fp32"},
        "evaluate": {"every": 3},
        "checkpoint": {"every": 3},
        "track": {"mlflow": False},
    }
    tiny.config.write_text(yaml.safe_dump(settings), encoding="utf-8")


def environment(**more: str) -> dict[str, str]:
    """This process's, without a launcher's variables, without GPUs, offline, one thread a rank."""
    launched = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    kept = {k: v for k, v in os.environ.items() if k not in launched and not k.startswith("SLURM_")}
    fixed = {
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # deepspeed looks for python and ninja there
    return kept | fixed | {"TOKENIZERS_PARALLELISM": "false", "GLOO_SOCKET_IFNAME": "lo", "PATH": path} | more


def command(launcher: str, ranks: int, config: Path | str, *overrides: str) -> list[str]:
    """The command line that starts `ranks` ranks with python, unsee, torchrun or deepspeed."""
    rest = ["--config", str(config), *overrides]
    if launcher == "unsee":
        return [str(BIN / "unsee"), "train", str(config), *overrides]
    if launcher == "python":
        return [sys.executable, SCRIPT, *rest]
    port = str(free_port())
    if launcher == "torchrun":
        meeting = ["--nproc-per-node", str(ranks), "--master-addr", "127.0.0.1", "--master-port", port]
        return [str(BIN / "torchrun"), *meeting, SCRIPT, *rest]
    assert launcher == "deepspeed"
    return [str(BIN / "deepspeed"), "--num_accelerators", str(ranks), "--master_port", port, SCRIPT, *rest]


def start(
    arguments: list[str], cwd: Path = REPOSITORY, env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a command in a session of its own: what kills it does not reach the tests."""
    pipe = subprocess.PIPE
    variables = environment() if env is None else env
    return subprocess.Popen(
        arguments, cwd=cwd, env=variables, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def kill(process: subprocess.Popen[str]) -> tuple[str, str]:
    """SIGKILL to a command and all it started: no handler runs, nothing is written any more.

    Not to its process group: torchrun gives every rank a session of its own, and they would train on.
    """
    parent = psutil.Process(process.pid)
    for member in [parent, *parent.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    return process.communicate()


def finish(process: subprocess.Popen[str], timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Wait; a command that does not end in time is killed, and what it said is in the failure."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        out, err = kill(process)
        raise AssertionError(f"{process.args!r} did not end in {timeout_s} s:\n{out}\n{err}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(arguments: list[str], timeout_s: float = 120, **more: Any) -> subprocess.CompletedProcess[str]:
    return finish(start(arguments, **more), timeout_s)


def succeed(arguments: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    done = run(arguments, **more)
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def history(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without times and speeds."""
    moving = {"time", "sentences_per_s", "tokens_per_s", "wait"}
    return [{k: v for k, v in line.items() if k not in moving} for line in lines(folder / "metrics.jsonl")]


def losses(folder: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in history(folder) if "loss" in line}


def traced(folder: Path) -> dict[int, list[int]]:
    """Sentence ids of every step over all ranks, sorted: repeated ids stay repeated."""
    ids_by_step: dict[int, list[int]] = {}
    for path in sorted((folder / "trace").glob("rank-*.jsonl")):
        for line in lines(path):
            ids_by_step.setdefault(line["step"], []).extend(line["ids"])
    return {step: sorted(ids) for step, ids in sorted(ids_by_step.items())}
