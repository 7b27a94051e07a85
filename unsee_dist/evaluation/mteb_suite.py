"""An encoder on a task of mteb: its score, its geometry and, on STS, the cosine of each pair.

Scores are mteb's main scores x 100, averaged over a task's subsets and splits as mteb does.
"""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import mteb
import numpy as np
from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from mteb.abstasks import AbsTaskSTS, retrieval_dataset_loaders
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.models import EncoderProtocol, ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction
from mteb.types import BatchedInput

from unsee_dist.errors import UserError
from unsee_dist.evaluation.mteb_data import configurations, revisions
from unsee_dist.evaluation.mteb_tasks import LOCAL, VERSION, EvaluationTask
from unsee_dist.files.hub import is_load_error, load_failure
from unsee_dist.log import quiet
from unsee_dist.metrics.embedding_check import EmbeddingCheck, Unusable
from unsee_dist.metrics.sts import Pairs
from unsee_dist.metrics.task_score import ModelIdentity, PairCosines, TaskScore
from unsee_dist.metrics.tfidf import tfidf_spearman

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

# mteb calls it before it loads a retrieval task. Its own, offline, leaves out which documents to rerank.
retrieval_dataset_loaders.get_dataset_config_names = configurations  # type: ignore[attr-defined]  # mteb imports the name there, and does not export it

Embed = Callable[[list[str]], np.ndarray]  # (n texts) -> (n, D)


class Encoder(AbsEncoder):
    """An encoder under mteb's protocol. name and revision identify the weights: mteb's cache never mixes two encoders.

    unusable: why it gets no score on any task, None where it can be scored.
    """

    def __init__(self, embed: Embed, name: str, revision: str, unusable: str | None = None) -> None:
        self.embed, self.check, self.unusable = embed, EmbeddingCheck(), unusable
        self.identity = ModelIdentity(name, revision)
        meta = {"name": name, "revision": revision, "similarity_fn_name": ScoringFunction.COSINE}
        self.mteb_model_meta = ModelMeta.create_empty(overwrites=meta)

    def encode(self, inputs: DataLoader[BatchedInput], **_: object) -> np.ndarray:
        """mteb's batches of texts -> (n, D). Raises Unusable before anything is scored."""
        sentences = [text for batch in inputs for text in batch["text"]]
        z_ND = np.asarray(self.embed(sentences))
        self.check.add(sentences, z_ND)
        return z_ND


def prefetch(task: EvaluationTask) -> None:
    """Load a published task's data, from the Hub or this machine's cache. UserError: neither, or another revision;
    TransientError: the Hub does not answer now."""
    remedy = f"a network, with the same HF_HOME: unsee evaluate MODEL --tier {task.name} --prefetch."
    parts = task.task.metadata.tasks if isinstance(task.task, AbsTaskAggregate) else [task.task]
    try:
        with _quiet():
            for part in parts:
                part.load_data()
    except Exception as error:
        if not is_load_error(error, RuntimeError):  # "Dataset scripts are no longer supported"
            raise
        why = type(error).__name__
        sentence = (
            f"{task.name} is not on this machine and could not be loaded ({why}). Where there is {remedy}"
        )
        raise load_failure(sentence, error) from error
    for part in parts:
        revision = part.metadata.dataset["revision"]
        if other := sorted(revisions(part.dataset) - {revision}):
            raise UserError(
                f"{task.name}: this machine has revision {other[0]} of its data, mteb {VERSION} needs {revision}. "
                f"Where there is {remedy}"
            )


def evaluate_task(task: EvaluationTask, encoder: Encoder, cache: Path | None) -> TaskScore:
    """Score an encoder on a task. The score is None when its embeddings are unusable."""
    if task.benchmark != LOCAL:
        prefetch(task)
    encoder.check, began = EmbeddingCheck(), time.perf_counter()
    pairs, measured = _pairs(task), _Measured()
    try:
        if encoder.unusable:
            raise Unusable(encoder.unusable)
        measured = _measure(task, encoder, cache, pairs)
    except Unusable as error:
        measured = _Measured(unusable=str(error))
    return TaskScore(
        task.name,
        task.group,
        task.benchmark,
        task.task.metadata.main_score,
        task.data,
        VERSION,
        encoder.identity,
        seconds=round(time.perf_counter() - began, 2),
        **vars(measured),
    )


@dataclass(frozen=True)
class _Measured:
    """The part of a TaskScore that depends on the embeddings."""

    score: float | None = None
    geometry: dict[str, float] = field(default_factory=dict)
    unusable: str | None = None
    tfidf: float | None = None
    pairs: PairCosines | None = None


def _measure(task: EvaluationTask, encoder: Encoder, cache: Path | None, pairs: Pairs | None) -> _Measured:
    with tempfile.TemporaryDirectory() as predictions, _quiet():
        result = mteb.evaluate(
            cast(EncoderProtocol, encoder), task.task, co2_tracker=False, show_progress_bar=False, prediction_folder=predictions,
            encode_kwargs={"batch_size": 1024, "show_progress_bar": False},
            cache=mteb.ResultCache(cache) if cache else None,
            overwrite_strategy="always",
        )  # fmt: skip
        score = 100 * float(result.task_results[0].get_score())
        cosines = None if pairs is None else _cosines(Path(predictions))
    geometry = encoder.check.geometry()
    if not np.isfinite(score):
        raise Unusable("collapsed: the score is not a number")
    if pairs is None or cosines is None:
        return _Measured(score, geometry)
    tfidf = tfidf_spearman(pairs)
    return _Measured(
        score,
        geometry,
        tfidf=tfidf if np.isfinite(tfidf) else None,
        pairs=PairCosines(cosines, pairs.scores.tolist()),
    )


def _pairs(task: EvaluationTask) -> Pairs | None:
    """The sentence pairs of an STS task of one subset and split; None for any other."""
    sts = task.task
    if not isinstance(sts, AbsTaskSTS) or len(sts.hf_subsets) != 1 or len(sts.eval_splits) != 1:
        return None
    sts.load_data()
    assert sts.dataset is not None
    splits = sts.dataset.get(sts.hf_subsets[0], sts.dataset)
    rows, (first, second) = splits[sts.eval_splits[0]], sts.column_names
    return Pairs(list(rows[first]), list(rows[second]), np.asarray(rows["score"], dtype=np.float64))


def _cosines(predictions: Path) -> list[float]:
    (file,) = predictions.glob("*.json")
    tree = json.loads(file.read_text(encoding="utf-8"))
    ((_, split),) = ((name, part) for name, part in tree.items() if name != "mteb_model_meta")
    ((_, scores),) = split.items()
    return [float(np.ravel(cosine)[0]) for cosine in scores["cosine_scores"]]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and log lines of mteb and datasets, which are for their developers."""
    bars = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with quiet("mteb", "datasets"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if not bars:
            enable_progress_bars()
