"""The argument MODEL of `unsee evaluate | compare | export`.

runs/mine                          a run: its best/, else its final/
runs/mine/checkpoints/step-...     a checkpoint: the online encoder at that step
runs/mine/final, any folder        written by `unsee export` or sentence-transformers, or a plain transformers
                                   folder (mean pooling)
owner/name                         a model of the Hub, a baseline
tfidf                              the baseline without training: counts the words of the task's own texts
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from unsee_dist.errors import UserError
from unsee_dist.evaluation.half_written import refuse_half_written
from unsee_dist.files.hub import is_hub_name, is_load_error, reason
from unsee_dist.log import LOG, quiet
from unsee_dist.metrics.names import BEST, STEP, dev
from unsee_dist.metrics.tfidf import WORDS, TfIdf
from unsee_dist.model.encoder import OF_VALUES, quiet_transformers
from unsee_dist.model.limits import check_vocabulary, longest
from unsee_dist.publish.usable import why_unusable
from unsee_dist.tracking.metrics_file import METRICS, read
from unsee_dist.tracking.note import NOTE
from unsee_dist.training.checkpoint.directory import CHECKPOINTS, folders

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ELSEWHERE = Path("evaluations")  # scores of models that are no run's
TFIDF = "tfidf"
AT_ONCE = 64  # texts


@dataclass(frozen=True)
class EvaluationModel:
    """An encoder. revision: identifies it, with a digest of its weights and pooling.

    home: the folder of its scores, one JSON a task. run: the run's folder, or None. folder: of the export; None for a
    checkpoint, the Hub and TF-IDF. unusable(): why it cannot be used, or None. max_tokens: word pieces that a text is cut
    to; None = all are read.
    """

    name: str
    revision: str
    home: Path
    run: Path | None
    embed: Callable[[list[str]], np.ndarray]  # (n texts) -> (n, D); TfIdf needs its `prepare` first
    folder: Path | None = None
    unusable: Callable[[], str | None] = lambda: None
    max_tokens: int | None = None


def open_model(source: str) -> EvaluationModel:
    """Load a MODEL of the command line. UserError: it is no model, or half written."""
    path = Path(source)
    if source == TFIDF and not path.exists():
        return EvaluationModel("baseline/tfidf", f"words-{WORDS}", ELSEWHERE / TFIDF, None, TfIdf())
    if not path.is_dir():
        return _from_hub(source, path)
    if (path / "config.yaml").is_file() and not (path / "config.json").exists():
        return _of_run(path)
    if (path / "manifest.json").is_file():
        return _of_checkpoint(path)
    refuse_half_written(path)
    run = path.parent if (path.parent / "config.yaml").is_file() else None
    return _load(str(path), path, run, path.name)


def run_folder(path: Path) -> Path:
    """The export of a run to evaluate: best/ if there is one, else final/. UserError: it has neither."""
    for name in ("best", "final"):
        if (path / name).is_dir():
            return path / name
    checkpoints = folders(path / CHECKPOINTS)
    remedy = (
        f"Give its newest checkpoint: {checkpoints[-1]}"
        if checkpoints
        else "It has no checkpoint either: train it first, by its own command"
    )
    raise UserError(
        f"{path} is a run without best/ and final/: it is not finished, and no evaluation became best/. {remedy}."
    )


def _of_run(path: Path) -> EvaluationModel:
    folder = run_folder(path)
    refuse_half_written(folder)
    return _load(str(folder), folder, path, folder.name)


def _of_checkpoint(path: Path) -> EvaluationModel:
    from unsee_dist.publish.from_checkpoint import write_online

    run = path.resolve().parent.parent
    with tempfile.TemporaryDirectory() as folder:
        write_online(path, run, Path(folder) / "encoder")
        return _load(str(Path(folder) / "encoder"), None, run, path.name, path)


def _from_hub(source: str, path: Path) -> EvaluationModel:
    if path.exists() or not is_hub_name(source):
        raise UserError(
            f"{source} is not a model: no such folder. Give a run, a checkpoint, an exported folder or owner/name."
        )
    return _load(source, None, None, source)


def _load(
    source: str, folder: Path | None, run: Path | None, export: str, checkpoint: Path | None = None
) -> EvaluationModel:
    """export: best, final, a checkpoint's name, or the name of a folder or a model that is of no run."""
    encoder = _sentence_transformer(source)
    _fit_texts(source, encoder)
    embed = _embedder(encoder)
    unusable = partial(why_unusable, checkpoint or folder, getattr(encoder, "tokenizer", None), embed)
    digest = _digest(encoder)
    scores = f"{export}-{digest[:8]}".replace("/", "__")
    if run is None:
        name = export if "/" in export else f"local/{export}"
        home, revision = ELSEWHERE / scores, digest
        return EvaluationModel(name, revision, home, None, embed, folder, unusable, encoder.max_seq_length)
    step = _step(run, export)
    revision = f"{export}-{step}-{digest}" if step else f"{export}-{digest}"
    name = f"{run.resolve().name}/{export}"
    home = run / "evaluation" / scores
    return EvaluationModel(name, revision, home, run, embed, folder, unusable, encoder.max_seq_length)


def _fit_texts(source: str, encoder: SentenceTransformer) -> None:
    """Cut texts to what the encoder's positions hold, where the folder says more or nothing. UserError: check_vocabulary."""
    from transformers import PreTrainedModel

    inner = getattr(encoder[0], "auto_model", None)
    if not isinstance(inner, PreTrainedModel):
        return
    check_vocabulary(source, inner, encoder.tokenizer)
    most, given = longest(inner), encoder.max_seq_length
    if most is not None and (given is None or given > most):
        says = "no limit" if given is None else f"max_seq_length = {given}"
        LOG.warning(
            f"{source} says {says}, and has positions for {most} word pieces: texts are cut to these."
        )
        encoder.max_seq_length = most


def _sentence_transformer(source: str) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    # Not reported: "pooler: missing", and "using cached commit hash" without a network. Neither is a mistake here.
    with quiet_transformers(), quiet("huggingface_hub"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 6.x: 5.1's names of the modules are old
        try:
            return SentenceTransformer(source, trust_remote_code=False).eval()
        except Exception as error:
            if not is_load_error(error, *OF_VALUES):
                raise
            if Path(source).is_dir():
                raise UserError(
                    f"{source} cannot be loaded as a sentence encoder ({reason(error)}). Export it again."
                ) from error
            raise UserError(
                f"{source} is neither a folder here nor a model that could be loaded from the Hub ({reason(error)}). "
                f"Where there is a network, with the same HF_HOME: unsee evaluate {source} --prefetch."
            ) from error


def _embedder(encoder: SentenceTransformer) -> Callable[[list[str]], np.ndarray]:
    def embed(texts: list[str]) -> np.ndarray:
        return encoder.encode(texts, batch_size=AT_ONCE, show_progress_bar=False, convert_to_numpy=True)

    return embed


def _digest(encoder: SentenceTransformer) -> str:
    """Of every weight, of the pooling and of the maximal length."""
    digest = xxhash.xxh3_128(f"{encoder.max_seq_length} {encoder}".encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        if ".pooler." in name:  # not used; when a folder has none, loaders make a random one
            continue
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _step(run: Path, export: str) -> str:
    """The step of a run's export, "" when metrics.jsonl does not have it."""
    if export.startswith("step-"):
        return ""  # it is in the name
    if (note := NOTE.read(run / export)) is not None:
        return f"step{note.step}"
    best, last = 0, 0
    try:
        lines = read(run / METRICS)
    except UserError:  # a damaged file: the digest still identifies the model
        return ""
    for line in lines:
        last = line[STEP]
        best = last if line.get(dev(BEST)) else best
    step = best if export == "best" else last
    return f"step{step}" if step else ""
