"""Encoders good, random, collapsed and broken, and task files, made by rule; and `unsee` called in this process."""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from integration import tiny as making

TASKS = ("intents", "topics", "same", "rerank", "search", "similar", "dev")  # what `write_tasks` writes


@dataclass(frozen=True)
class Output:
    """The output of a command, and its exit code."""

    code: int
    out: str
    err: str


def unsee(*arguments: str, cwd: Path) -> Output:
    """`unsee ...` in this process (a new one imports torch and mteb for seconds), from the folder `cwd`."""
    from unsee_dist import cli

    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.ExitStack() as inside:
        inside.enter_context(contextlib.chdir(cwd))
        inside.enter_context(contextlib.redirect_stdout(out))
        inside.enter_context(contextlib.redirect_stderr(err))
        inside.enter_context(mock.patch.object(sys, "argv", ["unsee", *arguments]))
        inside.enter_context(mock.patch.dict("os.environ", COLUMNS="200"))
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Output(code, out.getvalue(), err.getvalue())


def is_sentence(output: Output, *words: str) -> None:
    assert output.code == 2, f"exit code {output.code}: {output.out} {output.err}"
    assert "Traceback" not in output.err
    assert all(word in output.err for word in words), output.err


def loaded(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SentenceTransformer(str(folder))


def write_model(folder: Path, tiny: making.Tiny, change: str = "none", seed: int = 0) -> Path:
    """An export of the tiny encoder: as it is (none), with other weights (random), at one point, or NaN."""
    from transformers import AutoModel, AutoTokenizer

    from unsee_dist.publish.sentence_transformers import write_encoder

    model = AutoModel.from_pretrained(tiny.encoder, add_pooling_layer=False)
    generator = torch.Generator().manual_seed(seed)
    state = dict(model.state_dict())
    for name, tensor in state.items():
        if change == "random" and tensor.is_floating_point() and tensor.dim() > 1:
            state[name] = torch.randn(tensor.shape, generator=generator) * 0.05
    last = f"encoder.layer.{model.config.num_hidden_layers - 1}.output.LayerNorm"
    if change == "point":  # the last LayerNorm gives its bias, whatever it reads
        state[f"{last}.weight"] = torch.zeros_like(state[f"{last}.weight"])
        state[f"{last}.bias"] = torch.randn(len(state[f"{last}.bias"]), generator=generator)
    if change == "nan":
        state[f"{last}.bias"] = torch.full_like(state[f"{last}.bias"], float("nan"))
    write_encoder(folder, state, model.config, AutoTokenizer.from_pretrained(tiny.encoder), "mean", 16)
    return folder


def write_tasks(folder: Path) -> Path:
    """One task of every kind, from sentences made by rule; the label of a sentence is its thing, or its deed."""
    folder.mkdir(parents=True)
    rng, sentences = random.Random(1), making.corpus(400)
    things = {name: place for place, name in enumerate(making.THINGS)}
    label = [things[sentence.split()[2]] for sentence in sentences]
    table(
        folder / "topics.tsv", ["text", "label"], [(s, label[i] % 5) for i, s in enumerate(sentences[:150])]
    )
    for part, at in (("train", 0), ("test", 200)):
        intents = [(s, f"kind {label[i] % 3}") for i, s in enumerate(sentences) if at <= i < at + 120]
        table(folder / f"intents_{part}.tsv", ["text", "label"], intents)
    pairs = [(sentences[i], sentences[rng.randrange(400)]) for i in range(120)]
    overlap = [len(set(a.split()) & set(b.split())) + rng.random() for a, b in pairs]
    table(
        folder / "similar.tsv",
        ["sentence1", "sentence2", "score"],
        [(*p, s) for p, s in zip(pairs, overlap, strict=True)],
    )
    same = [(*p, int(s > 4.5)) for p, s in zip(pairs, overlap, strict=True)]
    table(folder / "same.tsv", ["sentence1", "sentence2", "label"], same)
    reranked = []
    for i in range(0, 100, 5):
        near = [" ".join(sentences[i].split()[:-1]), *rng.sample(sentences, 6)]
        reranked.append({"query": sentences[i], "positive": near[:1], "negative": near[1:]})
    lines(folder / "rerank.jsonl", reranked)
    halves = [
        (" ".join(s.split()[:5]), " ".join(s.split()[5:])) for s in sentences[:80] if len(s.split()) > 9
    ]
    table(folder / "dev.tsv", ["query", "answer"], halves)
    (folder / "search" / "qrels").mkdir(parents=True)
    lines(
        folder / "search" / "corpus.jsonl",
        [{"_id": f"d{i}", "title": "", "text": s} for i, s in enumerate(sentences)],
    )
    queries = [{"_id": f"q{i}", "text": " ".join(rng.sample(sentences[i].split(), 6))} for i in range(30)]
    lines(folder / "search" / "queries.jsonl", queries)
    relevant = [(f"q{i}", f"d{i}", 1) for i in range(30)]
    table(folder / "search" / "qrels" / "test.tsv", ["query-id", "corpus-id", "score"], relevant)
    return folder


def table(path: Path, header: list[str], rows: Sequence[tuple[object, ...]]) -> None:
    path.write_text("\n".join("\t".join(map(str, row)) for row in [header, *rows]) + "\n", encoding="utf-8")


def lines(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
