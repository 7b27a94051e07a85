"""MTEB: published tasks by tier or name, local ones through mteb's own task classes. The only importer of mteb.

    tier   tasks, taken from                      groups as in the MTEB paper (arXiv:2210.07316)
    sts    MTEB(eng, v1): STS12-16, STSBenchmark, SICK-R, BIOSSES
    fast   MTEB(eng, v1): one small task or two of each of the seven groups
    v2     MTEB(eng, v2): 41 tasks                v1 and v2 averages are not comparable
    v1     MTEB(eng, v1): 56 tasks, the paper's

Scores are mteb's main scores x 100, averaged over a task's subsets and splits as mteb does.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import mteb
import numpy as np
from datasets import disable_progress_bars
from mteb.abstasks import (
    AbsTask,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
    retrieval_dataset_loaders,
)
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction

from unsee_dist.errors import UserError
from unsee_dist.evaluation.local_tasks import LocalTask
from unsee_dist.evaluation.mteb_data import configurations, dataset_of, revisions
from unsee_dist.evaluation.task_files import texts
from unsee_dist.metrics.sts import Pairs
from unsee_dist.metrics.tfidf import tfidf_spearman
from unsee_dist.metrics.usable import Unusable, Watch

VERSION: str = mteb.__version__
V1, V2, LOCAL = "MTEB(eng, v1)", "MTEB(eng, v2)", "local"
STS = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R", "BIOSSES")
FAST = ("Banking77Classification", "EmotionClassification", "TwentyNewsgroupsClustering", "TwitterSemEval2015",
        "AskUbuntuDupQuestions", "SciFact", "NFCorpus", "STSBenchmark", "SICK-R", "SummEval")  # fmt: skip
TIERS = ("sts", "fast", "v2", "v1")

# What mteb asks before it loads a search: by itself it forgets, offline, which documents are to be reranked.
retrieval_dataset_loaders.get_dataset_config_names = configurations  # type: ignore[attr-defined]

Embed = Callable[[list[str]], np.ndarray]  # (n texts) -> (n, D)


@dataclass(frozen=True)
class EvaluationTask:
    """A task to be judged on: its name, group, benchmark, and what tells its data from any other's."""

    name: str
    group: str
    benchmark: str
    data: str
    task: AbsTask
    texts: list[str] | None = None  # of a local task: what TF-IDF counts


class Encoder(AbsEncoder):
    """An encoder under mteb's protocol. name and revision say which checkpoint, so that no cache mixes two up."""

    def __init__(self, embed: Embed, name: str, revision: str) -> None:
        self.embed, self.watch = embed, Watch()
        meta = {"name": name, "revision": revision, "similarity_fn_name": ScoringFunction.COSINE}
        self.mteb_model_meta = ModelMeta.create_empty(overwrites=meta)

    def encode(self, inputs: Any, **_: Any) -> np.ndarray:
        """mteb's batches of texts -> (n, D). Raises Unusable before anything can be scored."""
        found = [text for batch in inputs for text in batch["text"]]
        z_ND = np.asarray(self.embed(found))
        self.watch.add(found, z_ND)
        return z_ND


def published(names: Sequence[str]) -> list[EvaluationTask]:
    """The tasks of tiers (sts, fast, v2, v1) or mteb's names, each once. ValueError with the closest name."""
    found: dict[str, EvaluationTask] = {}
    for name in names:
        for chosen in _tier(name) if name in TIERS else [_named(name)]:
            found.setdefault(chosen.name, chosen)
    return list(found.values())


def _tier(tier: str) -> Iterator[EvaluationTask]:
    benchmark = V2 if tier == "v2" else V1
    wanted = {"sts": STS, "fast": FAST}.get(tier)
    # From the benchmark, never by name alone: get_task("STS17") is cross-lingual, the benchmark's is English.
    for task in mteb.get_benchmark(benchmark).tasks:
        if wanted is None or task.metadata.name in wanted:
            yield _chosen(task, benchmark)


def _named(name: str) -> EvaluationTask:
    for benchmark in (V1, V2):
        for task in mteb.get_benchmark(benchmark).tasks:
            if task.metadata.name == name:
                return _chosen(task, benchmark)
    known = [task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)]
    if name in known:
        return _chosen(mteb.get_task(name), "no benchmark")
    near = get_close_matches(name, [*TIERS, *known], n=1, cutoff=0.4)
    meant = f" Did you mean {near[0]}?" if near else ""
    raise UserError(
        f"--tier {name} is neither a tier ({', '.join(TIERS)}) nor a task of mteb {VERSION}.{meant}"
    )


def _chosen(task: AbsTask, benchmark: str) -> EvaluationTask:
    return EvaluationTask(
        task.metadata.name, task.metadata.type, benchmark, str(task.metadata.dataset["revision"]), task
    )


def prefetch(chosen: EvaluationTask) -> None:
    """Load a published task's data, from the Hub or this machine's cache. ValueError: neither, or another revision."""
    task, again = chosen.task, "a network, with the same HF_HOME: unsee evaluate MODEL --tier"
    parts = task.metadata.tasks if isinstance(task, AbsTaskAggregate) else [task]
    try:
        with _quiet():
            for part in parts:
                part.load_data()
    except Exception as error:  # datasets raises a dozen unrelated types for "not there" and "no network"
        raise UserError(
            f"{chosen.name} is not on this machine and could not be loaded ({type(error).__name__}). Where there is "
            f"{again} {chosen.name} --prefetch."
        ) from error
    for part in parts:
        wanted = part.metadata.dataset["revision"]
        if other := sorted(revisions(part.dataset) - {wanted}):
            raise UserError(
                f"{chosen.name}: this machine has revision {other[0]} of its data, mteb {VERSION} asks for {wanted}. "
                f"Where there is {again} {chosen.name} --prefetch."
            )


def score(chosen: EvaluationTask, encoder: Encoder, cache: Path | None) -> dict[str, Any]:
    """Judge an encoder on a task: the record that is kept (see scores.py). score is absent for the unusable."""
    encoder.watch, began = Watch(), time.perf_counter()
    record: dict[str, Any] = {"task": chosen.name, "group": chosen.group, "benchmark": chosen.benchmark}
    record |= {"metric": chosen.task.metadata.main_score, "data": chosen.data, "mteb": VERSION}
    if chosen.benchmark != LOCAL:
        prefetch(chosen)
    pairs = _pairs(chosen)
    try:
        with tempfile.TemporaryDirectory() as predictions, _quiet():
            done = mteb.evaluate(
                cast(Any, encoder), chosen.task, co2_tracker=False, show_progress_bar=False, prediction_folder=predictions,
                encode_kwargs={"batch_size": 1024, "show_progress_bar": False},
                cache=mteb.ResultCache(cache) if cache else None,
                overwrite_strategy="always",
            )  # fmt: skip
            record["score"] = 100 * float(done.task_results[0].get_score())
            if pairs is not None:
                record["pairs"] = {"cosines": _cosines(Path(predictions)), "scores": pairs.scores.tolist()}
        record["geometry"] = encoder.watch.geometry()
        if not np.isfinite(record["score"]):
            raise Unusable("collapsed: the score is not a number")
        if pairs is not None:
            record["tfidf"] = tfidf_spearman(pairs)
    except Unusable as verdict:
        record.pop("pairs", None)
        record |= {"score": None, "unusable": str(verdict)}
    return record | {"seconds": round(time.perf_counter() - began, 2)}


def _pairs(chosen: EvaluationTask) -> Pairs | None:
    """The sentence pairs of an STS task of one subset and split; None for any other."""
    task = chosen.task
    if chosen.group != "STS" or len(task.hf_subsets) != 1 or len(task.eval_splits) != 1:
        return None
    task.load_data()
    assert task.dataset is not None
    splits = task.dataset.get(task.hf_subsets[0], task.dataset)
    rows, (first, second) = splits[task.eval_splits[0]], cast(AbsTaskSTS, task).column_names
    return Pairs(list(rows[first]), list(rows[second]), np.asarray(rows["score"], dtype=np.float64))


def _cosines(predictions: Path) -> list[float]:
    (file,) = predictions.glob("*.json")
    found = json.loads(file.read_text(encoding="utf-8"))
    ((_, split),) = ((name, part) for name, part in found.items() if name != "mteb_model_meta")
    ((_, scores),) = split.items()
    return [float(np.ravel(cosine)[0]) for cosine in scores["cosine_scores"]]


class _quiet(warnings.catch_warnings):
    """What mteb and datasets log and warn of is for their developers; ours are sentences."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.simplefilter("ignore")
        for library in ("mteb", "datasets"):
            logging.getLogger(library).setLevel(logging.ERROR)
        disable_progress_bars()
        return entered


def local(described: LocalTask) -> EvaluationTask:
    """A local task as a real mteb task."""
    base, group, main = KINDS[described.kind]
    facts = TaskMetadata(
        name=described.name, description="A local task.", type=cast(Any, group), main_score=main, eval_langs=["eng-Latn"],
        dataset={"path": described.name, "revision": described.digest}, category="t2t",
    )  # fmt: skip
    task = type("LocalTask", (base,), {"metadata": facts, "load_data": _filled})()
    task.dataset, task.data_loaded = dataset_of(described), True
    if described.kind == "clustering":  # all texts, not mteb's 4%
        task.max_fraction_of_documents_to_embed = None
    return EvaluationTask(described.name, group, LOCAL, described.digest, task, list(texts(described.data)))


def _filled(*_: Any, **__: Any) -> None:
    """A local task's data is there from the start."""


KINDS: dict[str, tuple[type[AbsTask], str, str]] = {
    "sts": (AbsTaskSTS, "STS", "cosine_spearman"),
    "pair_classification": (AbsTaskPairClassification, "PairClassification", "max_ap"),
    "classification": (AbsTaskClassification, "Classification", "accuracy"),
    "clustering": (AbsTaskClustering, "Clustering", "v_measure"),
    "reranking": (AbsTaskRetrieval, "Reranking", "map_at_1000"),
    "retrieval": (AbsTaskRetrieval, "Retrieval", "ndcg_at_10"),
    "questions": (AbsTaskRetrieval, "Retrieval", "mrr_at_1000"),
}
