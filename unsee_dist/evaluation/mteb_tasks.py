"""The tasks of mteb: published ones by tier or name, local ones through mteb's own task classes.

tier   tasks, taken from                      groups as in the MTEB paper (arXiv:2210.07316)
sts    MTEB(eng, v1): STS12-16, STSBenchmark, SICK-R, BIOSSES
fast   MTEB(eng, v1): one small task or two of each of the seven groups
v2     MTEB(eng, v2): 41 tasks                v1 and v2 averages are not comparable
v1     MTEB(eng, v1): 56 tasks, the paper's
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mteb
from mteb.abstasks import (
    AbsTask,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.task_metadata import TaskMetadata, TaskType

from unsee_dist.config.spelling import closest
from unsee_dist.errors import UserError
from unsee_dist.evaluation.local_tasks import LocalTask
from unsee_dist.evaluation.mteb_data import dataset_of
from unsee_dist.evaluation.task_files import texts

VERSION: str = mteb.__version__
V1, V2, LOCAL = "MTEB(eng, v1)", "MTEB(eng, v2)", "local"
STS = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R", "BIOSSES")
FAST = ("Banking77Classification", "EmotionClassification", "TwentyNewsgroupsClustering", "TwitterSemEval2015",
        "AskUbuntuDupQuestions", "SciFact", "NFCorpus", "STSBenchmark", "SICK-R", "SummEval")  # fmt: skip
TIERS = ("sts", "fast", "v2", "v1")


@dataclass(frozen=True)
class EvaluationTask:
    """A task, its group and benchmark. data: a digest of its data, or the Hub's revision. texts: of a local task only, for
    TF-IDF."""

    name: str
    group: str
    benchmark: str
    data: str
    task: AbsTask
    texts: list[str] | None = None


def published(names: Sequence[str]) -> list[EvaluationTask]:
    """The tasks of tiers (sts, fast, v2, v1) or mteb's names, each once. UserError with the closest name."""
    tasks: dict[str, EvaluationTask] = {}
    for name in names:
        for task in _tier(name) if name in TIERS else [_named(name)]:
            tasks.setdefault(task.name, task)
    return list(tasks.values())


def _tier(tier: str) -> Iterator[EvaluationTask]:
    benchmark = V2 if tier == "v2" else V1
    names = {"sts": STS, "fast": FAST}.get(tier)
    # From the benchmark, never by name alone: get_task("STS17") is cross-lingual, the benchmark's is English.
    for task in mteb.get_benchmark(benchmark).tasks:
        if names is None or task.metadata.name in names:
            yield _evaluation_task(task, benchmark)


def _named(name: str) -> EvaluationTask:
    for benchmark in (V1, V2):
        for task in mteb.get_benchmark(benchmark).tasks:
            if task.metadata.name == name:
                return _evaluation_task(task, benchmark)
    known = [task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)]
    if name in known:
        return _evaluation_task(mteb.get_task(name), "no benchmark")
    near = closest(name, [*TIERS, *known])
    meant = f" Did you mean {near}?" if near else ""
    raise UserError(
        f"--tier {name} is neither a tier ({', '.join(TIERS)}) nor a task of mteb {VERSION}.{meant}"
    )


def _evaluation_task(task: AbsTask, benchmark: str) -> EvaluationTask:
    return EvaluationTask(
        task.metadata.name, task.metadata.type, benchmark, str(task.metadata.dataset["revision"]), task
    )


def local(described: LocalTask) -> EvaluationTask:
    """A local task as a real mteb task."""
    base, group, main = KINDS[described.kind]
    metadata = TaskMetadata(
        name=described.name, description="A local task.", type=group, main_score=main, eval_langs=["eng-Latn"],
        dataset={"path": described.name, "revision": described.digest}, category="t2t",
    )  # fmt: skip
    task = type("LocalTask", (base,), {"metadata": metadata, "load_data": _is_loaded})()
    task.dataset, task.data_loaded = dataset_of(described), True
    if described.kind == "clustering":  # all texts, not mteb's 4%
        task.max_fraction_of_documents_to_embed = None
    if isinstance(
        task, AbsTaskSTS
    ):  # scores as they are: mteb's own scale is 0 to 5, and tiny numbers would be lost in it
        task.min_score, task.max_score = 0, 1
    return EvaluationTask(described.name, group, LOCAL, described.digest, task, list(texts(described.data)))


def _is_loaded(*_: object, **__: object) -> None:
    """A local task has its data from the start."""


KINDS: dict[str, tuple[type[AbsTask], TaskType, str]] = {
    "sts": (AbsTaskSTS, "STS", "cosine_spearman"),
    "pair_classification": (AbsTaskPairClassification, "PairClassification", "max_ap"),
    "classification": (AbsTaskClassification, "Classification", "accuracy"),
    "clustering": (AbsTaskClustering, "Clustering", "v_measure"),
    "reranking": (AbsTaskRetrieval, "Reranking", "map_at_1000"),
    "retrieval": (AbsTaskRetrieval, "Retrieval", "ndcg_at_10"),
    "questions": (AbsTaskRetrieval, "Retrieval", "mrr_at_1000"),
}
