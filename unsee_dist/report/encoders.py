"""The encoder before training and after it, on sentences of the run's own sets and corpus.

    before   model.encoder, or the checkpoint of another run that the run began with
    after    best/, else final/, else the newest checkpoint

Both are read and encode as the run's evaluations do: the same pooling, the same length, fp32, dropout off.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from unsee_dist.config import RunConfig
from unsee_dist.data import open_corpus
from unsee_dist.data.stream.crops import beginnings
from unsee_dist.data.stream.packing import pack
from unsee_dist.errors import UserError
from unsee_dist.evaluation.half_written import refuse_half_written
from unsee_dist.evaluation.question_files import load_question_sets
from unsee_dist.evaluation.sts_files import load_sets
from unsee_dist.log import LOG
from unsee_dist.metrics.names import STEP
from unsee_dist.metrics.retrieval import Questions
from unsee_dist.metrics.sts import Pairs
from unsee_dist.model.encoder import encode, load_encoder, load_tokenizer, packs_exactly
from unsee_dist.publish.from_checkpoint import write_online
from unsee_dist.report.run_files import RunFiles, tried
from unsee_dist.tracking.note import BEST_EXPORT, FINAL_EXPORT
from unsee_dist.training.checkpoint.directory import CHECKPOINTS, folders
from unsee_dist.training.identity import describe_encoder, describe_sets

if TYPE_CHECKING:
    from transformers import PreTrainedModel

AT_ONCE = 64  # sentences
POOL = 500  # sentences of the corpus, for neighbours and the map
Embeddings = dict[str, np.ndarray]  # by sentence


class Sets(NamedTuple):
    """What a run is evaluated on, and sentences of its corpus. problems: sentences about what could not be read."""

    sts: dict[str, Pairs]
    retrieval: dict[str, Questions]
    pool: list[str]
    problems: list[str]


class Encoded(NamedTuple):
    """An encoder's name in words, and its embeddings."""

    name: str
    embeddings: Embeddings


def read_sets(run: RunFiles) -> Sets:
    """The sets of evaluate.sts and evaluate.retrieval and the first sentences of the corpus, as they are now."""
    if run.config is None:
        return Sets({}, {}, [], [])
    of_run, identity = run.config, run.manifest.identity if run.manifest else None
    config = of_run.evaluate
    problems: list[str] = []
    sts: dict[str, Pairs] = tried(problems, lambda: load_sets(config.sts or ()), {})
    retrieval: dict[str, Questions] = tried(problems, lambda: load_question_sets(config.retrieval or ()), {})
    corpus = tried(problems, lambda: open_corpus(of_run.data, check=False).head(POOL), list[str]())
    pool = beginnings(corpus, of_run)
    pairs = [(each.first, each.second, each.scores) for each in sts.values()]
    questions = [(each.queries, each.answers, each.own) for each in retrieval.values()]
    for key, digest, known in (
        ("evaluate.sts", describe_sets(pairs, "pairs"), identity.sts if identity else None),
        (
            "evaluate.retrieval",
            describe_sets(questions, "questions"),
            identity.retrieval if identity else None,
        ),
    ):
        if known is not None and digest not in (known, "absent"):
            problems.append(
                f"{key} has other contents than when the run was evaluated ({known}; now {digest})."
            )
    return Sets(sts, retrieval, list(dict.fromkeys(pool)), problems)


def before_and_after(
    run: RunFiles, sentences: Sequence[str], done: dict[str, Encoded]
) -> tuple[Encoded | None, Encoded | None, list[str]]:
    """Both encoders' embeddings, and sentences about what could not be had. done: encoders that an earlier run began with,
    which this adds to."""
    if run.config is None:
        return None, None, ["Without its settings, this run's encoders cannot be read."]
    problems: list[str] = []
    key = f"{_began_with(run)} {run.config.model.pooling} {run.config.model.max_tokens}"
    if key not in done:
        before = tried(problems, lambda: _before(run, sentences, problems), None)
        if before is not None:
            done[key] = before
    after = tried(problems, lambda: _after(run, sentences), None)
    if after is None and not problems:
        problems.append("There is no encoder after training yet: neither best/ nor final/ nor a checkpoint.")
    return done.get(key), after, problems


def _began_with(run: RunFiles) -> str:
    assert run.config is not None
    return (run.starts[0].origin if run.starts else None) or run.config.model.encoder


def _before(run: RunFiles, sentences: Sequence[str], problems: list[str]) -> Encoded:
    assert run.config is not None
    name = _began_with(run)
    if run.starts and run.starts[0].origin:
        with _of_checkpoint(Path(name)) as folder:
            return Encoded(name, _embed(str(folder), run.config, sentences, name))
    known = run.manifest.identity.encoder if run.manifest else None

    def check(encoder: PreTrainedModel) -> None:
        digest = describe_encoder(encoder)
        if known is not None and digest != known:
            problems.append(
                f"model.encoder = {name} has changed since the run began (it had {known}; now {digest})."
            )

    return Encoded(name, _embed(name, run.config, sentences, name, check))


def _after(run: RunFiles, sentences: Sequence[str]) -> Encoded | None:
    assert run.config is not None
    steps = {BEST_EXPORT: run.best.get(STEP), FINAL_EXPORT: run.step}
    for export, step in steps.items():
        if (run.folder / export).is_dir():
            refuse_half_written(run.folder / export)
            name = f"{export}/ (step {step})" if step is not None else f"{export}/"
            return Encoded(
                name, _embed(str(run.folder / export), run.config, sentences, f"{run.name}, {name}")
            )
    checkpoints = folders(run.folder / CHECKPOINTS)
    if not checkpoints:
        return None
    with _of_checkpoint(checkpoints[-1]) as folder:
        name = f"checkpoint {checkpoints[-1].name}"
        return Encoded(name, _embed(str(folder), run.config, sentences, f"{run.name}, {name}"))


@contextmanager
def _of_checkpoint(checkpoint: Path) -> Iterator[Path]:
    """Its online encoder as a folder that is there for a while. UserError: it is gone or damaged."""
    if not checkpoint.is_dir():
        raise UserError(f"{checkpoint}, which the run began with, is gone: there is nothing to compare with.")
    with tempfile.TemporaryDirectory() as folder:
        write_online(checkpoint, checkpoint.resolve().parent.parent, Path(folder) / "encoder")
        yield Path(folder) / "encoder"


@torch.no_grad()
def _embed(
    source: str,
    config: RunConfig,
    sentences: Sequence[str],
    name: str,
    check: Callable[[PreTrainedModel], None] = lambda _: None,
) -> Embeddings:
    """Each different sentence's embedding."""
    LOG.info(f"encoding {len(sentences):,} sentences: {name}")
    encoder, tokenizer = load_encoder(source, 0.0), load_tokenizer(source)
    check(encoder)
    encoder.eval().to(device := torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    most, ordered = config.model.max_tokens, sorted(set(sentences), key=len)
    share_rows = config.data.pack is not False and packs_exactly(encoder, config.model.pooling, most)
    rows = []
    for start in range(0, len(ordered), AT_ONCE):
        tokens = tokenizer(ordered[start : start + AT_ONCE], truncation=True, max_length=most)["input_ids"]
        micro_batch = pack(tokens, most, tokenizer.pad_token_id, share_rows).to(device)
        rows.append(encode(encoder, micro_batch, config.model.pooling, views=1).float().cpu().numpy())
    return dict(zip(ordered, np.concatenate(rows), strict=True)) if rows else {}
