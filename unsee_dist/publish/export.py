"""`unsee export`: a run as a folder for others: the encoder, and a model card filled from the run's files."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from unsee_dist.config import CONFIG, recorded
from unsee_dist.config.kinds import Kind, kind_of
from unsee_dist.errors import ROOM, UserError, refusals, writing
from unsee_dist.files import contents
from unsee_dist.files.atomic import atomic_folder, beside
from unsee_dist.files.hub import is_load_error, load_failure, reason
from unsee_dist.files.owner import owned
from unsee_dist.files.remote import check_local
from unsee_dist.metrics.names import (
    ALIGNMENT,
    CORRELATION,
    EFFECTIVE_RANK,
    MEAN_COSINE,
    STD,
    STEP,
    UNIFORMITY,
    dev,
)
from unsee_dist.metrics.task_score import TaskScore
from unsee_dist.metrics.verdict import collapse, decline
from unsee_dist.publish.card import Facts, card
from unsee_dist.publish.sentence_transformers import MODULES, cut_texts
from unsee_dist.tracking import record
from unsee_dist.tracking.metrics_file import METRICS, Line, evaluations
from unsee_dist.training.checkpoint import directory
from unsee_dist.training.checkpoint.manifest import NAME as MANIFEST
from unsee_dist.training.checkpoint.manifest import read_manifest
from unsee_dist.training.edited import check_record, check_scores

# Settings that are paths of the machine that trained it, which are not published, as `resume` is not.
PATHS = (
    *(("run", "dir"), ("data", "shards"), ("data", "mix")),
    *(("evaluate", "sts"), ("evaluate", "retrieval")),
)
GEOMETRY = (STD, EFFECTIVE_RANK, MEAN_COSINE, CORRELATION, UNIFORMITY, ALIGNMENT)


class ModelToExport(Protocol):
    """An opened encoder, as `unsee_dist.evaluation.models.open_model` returns it."""

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def run(self) -> Path | None: ...
    @property
    def folder(self) -> Path | None: ...
    @property
    def max_tokens(self) -> int | None: ...
    @property
    def embed(self) -> Callable[[list[str]], np.ndarray]: ...
    @property
    def unusable(self) -> Callable[[], str | None]: ...


@dataclass(frozen=True)
class Evaluation:
    """The scores of `unsee evaluate`, and the warnings to print with them."""

    scores: Sequence[TaskScore] = ()
    warnings: Sequence[str] = ()


def check(source: str, out: Path) -> None:
    """UserError before anything is loaded: `source` is no folder, or `out` holds something else than an export of it."""
    if not Path(source).is_dir():
        raise UserError(
            f"{source} is not a folder. Give a run, one of its checkpoints, or its best/ or final/."
        )
    check_local(out, "--out")
    if os.path.lexists(out) and not os.path.exists(
        out
    ):  # a link to itself: exists() of pathlib raises for some
        raise UserError(f"--out {out} is a link to nothing. Write another --out.")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MODULES).is_file():
        raise UserError(f"--out {out} holds something that is not an export. Give a new folder.")
    if contents.made_of(out) != _made_of(source):
        raise UserError(
            f"--out {out} holds an export of something other than {source}. Give a new folder, or move that one away."
        )
    if kept := contents.foreign(out):
        raise UserError(
            f"--out {out} holds files that no export wrote, or that were changed since: {', '.join(kept[:5])}"
            f"{', ...' if len(kept) > 5 else ''}. Move them away, or give a new folder."
        )


def _made_of(source: str) -> str:
    """The name of a run in the record of its exports, for the run's folder and for what is in it."""
    path = Path(os.path.realpath(source))
    run = next((each for each in (path, *path.parents[:2]) if (each / CONFIG).is_file()), path)
    return f"export of {contents.owner_name(run)}"


def export(source: str, model: ModelToExport, evaluation: Evaluation, out: Path, onnx: bool) -> None:
    """Write the model opened from `source` to `out`, replacing an older export. UserError: it is unusable."""
    what, remedy = f"--out {out}", "Wait until it has ended, or give another folder."
    place = out.absolute()  # "." has no name to put another beside
    with owned(beside(place, "owner"), what, remedy):
        check(source, out)
        with _written(place, what, _made_of(source)) as new, refusals(partial(_refusal, source, out, new)):
            _write(new, Path(source), model, evaluation, onnx)


@contextmanager
def _written(place: Path, what: str, owner: str) -> Iterator[Path]:
    """`atomic_folder`, with a sentence about `what` where the folder itself is refused. An error of the block stays as it is."""
    of_block: Exception | None = None
    try:
        with writing(what, "Make room, or give another folder."), atomic_folder(place, owner) as new:
            try:
                yield new
            except Exception as error:
                of_block = error
                raise
    except Exception:
        if of_block is None:
            raise
    if of_block is not None:
        raise of_block


def _refusal(source: str, out: Path, new: Path, refused: OSError) -> str:
    """The sentence about a file that the system refused: one of `source`, unless it is known to be of the new folder."""
    named = [
        Path(os.fsdecode(name))
        for name in (refused.filename, refused.filename2)
        if isinstance(name, str | bytes)
    ]
    if refused.errno in ROOM or not named or any(path.is_relative_to(new) for path in named):
        return f"--out {out} cannot be written ({refused.strerror}). Make room, or give another folder."
    return f"{source} cannot be read: {named[0]} ({refused.strerror}). Make it readable, or give another run."


def _write(new: Path, path: Path, model: ModelToExport, evaluation: Evaluation, onnx: bool) -> None:
    """The encoder of `path`, its card and, with `onnx`, model.onnx."""
    if (path / MANIFEST).is_file():
        from unsee_dist.publish.from_checkpoint import write_online

        write_online(path, path.resolve().parent.parent, new)
    else:
        assert model.folder is not None
        _copy(model.folder, new)
    if not (new / MODULES).is_file():
        raise UserError(f"{path} is a plain transformers folder. Give a run, or an export of one.")
    if model.max_tokens is not None:
        cut_texts(new, model.max_tokens)
    _refuse_unusable(str(path), model)
    facts = facts_of(model, evaluation, new)
    (new / "README.md").write_text(card(facts), encoding="utf-8")
    if onnx:
        from unsee_dist.publish.onnx import write_onnx

        write_onnx(new, facts.pooling)


def _copy(folder: Path, new: Path) -> None:
    """Copy an encoder's files, without the rights of files that another user may have made."""
    for path in contents.files_of(folder):
        if path.name != contents.RECORD:
            place = new / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def _refuse_unusable(source: str, model: ModelToExport) -> None:
    """UserError when the embeddings of different texts are not finite, at one point, or on one line."""
    if why := model.unusable():
        raise UserError(
            f"{source} is not exported: {why}. Give an earlier checkpoint: unsee checkpoint ls RUN."
        )


def facts_of(model: ModelToExport, evaluation: Evaluation, folder: Path) -> Facts:
    """The values of the card, from the export and, if there is one, its run."""
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    encoder = json.loads((folder / "sentence_bert_config.json").read_text(encoding="utf-8"))
    run = model.run
    if run:
        check_record(run)
        check_scores(run)
    config = recorded(run).model_dump(mode="json") if run else {}
    for section, key in PATHS:
        config.get(section, {}).pop(key, None)
    if config:
        config.pop("resume", None)
        config["model"]["encoder"] = _without_folders(config["model"]["encoder"])
    step, line = _measured(run, model) if run else (None, {})
    values = {name: line.get(dev(name), math.nan) for name in GEOMETRY}
    return Facts(
        name=model.name.removeprefix("local/"),
        revision=model.revision,
        width=pooling["word_embedding_dimension"],
        pooling="cls" if pooling.get("pooling_mode_cls_token") else "mean",
        max_tokens=encoder["max_seq_length"],
        config=config,
        corpus=_fingerprint(run) if run else None,
        step=step,
        geometry={name: value for name, value in values.items() if math.isfinite(value)},
        notices=_notices(run, step, line) if run else (),
        scores=sorted(evaluation.scores, key=lambda score: (score.benchmark, score.group, score.task)),
        warnings=evaluation.warnings,
    )


def _without_folders(name: str) -> str:
    return Path(name).name if name.startswith((".", "/")) or Path(name).is_dir() else name


def _notices(run: Path, step: int | None, line: Line) -> list[str]:
    """What a reader must know of the training: what its last evaluation says, and which settings changed meanwhile."""
    notices = [sentence for sentence in (collapse(line), decline(line)) if sentence]
    changed = [
        f"the settings below changed {sentence}"
        for sentence in record.changes(run, step or math.inf, _is_public)
    ]
    return [f"{sentence[0].upper()}{sentence[1:]}." for sentence in (*notices, *changed)]


def _is_public(key: str) -> bool:
    """Not where files lie on the machine that trained."""
    return kind_of(key) is not Kind.CONTENT and not key.startswith("run.") and key != "resume"


def _measured(run: Path, model: ModelToExport) -> tuple[int | None, Line]:
    """The step of an export, and the line of the evaluation at that step."""
    parts = model.revision.split("-")
    steps = [int(part.removeprefix("step")) for part in parts if part.startswith("step") and part != "step"]
    step = int(parts[1]) if model.revision.startswith("step-") else next(iter(steps), None)
    try:
        lines = [line for line in evaluations(run / METRICS) if line[STEP] == step]
    except UserError:  # the file is damaged: the card has no geometry
        lines = []
    return step, lines[-1] if lines else {}


def _fingerprint(run: Path) -> str | None:
    for folder in reversed(directory.folders(run / directory.CHECKPOINTS)):
        return read_manifest(folder).identity.corpus
    return None


def push(folder: Path, name: str) -> None:
    """Upload an export to the Hub as owner/name. UserError when the Hub refuses; TransientError when it does
    not answer now."""
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(name, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=name)
    except Exception as error:
        if not is_load_error(error):
            raise
        sentence = (
            f"--push {name} failed ({reason(error)}). {folder} is written; where there is a network: hf auth login, then "
            f"hf upload {name} {folder}."
        )
        raise load_failure(sentence, error) from error
