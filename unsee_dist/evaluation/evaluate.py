"""`unsee evaluate`: the scores of a model on tasks, as a table. Scores on disk are not measured again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console

from unsee_dist.data.processes import RAY
from unsee_dist.errors import UserError
from unsee_dist.evaluation import mteb_suite, score_table
from unsee_dist.evaluation.models import EvaluationModel, open_model
from unsee_dist.evaluation.mteb_tasks import VERSION, EvaluationTask, published
from unsee_dist.evaluation.on_ray import check_engine, evaluate_on_ray
from unsee_dist.evaluation.scores import check_home
from unsee_dist.evaluation.tasks import (
    EvaluationRequest,
    evaluate_tasks,
    missing_scores,
    select_tasks,
    shard_of,
)
from unsee_dist.log import progress_console
from unsee_dist.metrics.task_score import ModelIdentity, TaskScore
from unsee_dist.metrics.tfidf import TfIdf
from unsee_dist.tracking.bars import counting


class Measured(NamedTuple):
    """tasks: all of the command, of which `scores` has a part where there is a --shard."""

    model: EvaluationModel
    tasks: Sequence[EvaluationTask]
    scores: Sequence[TaskScore]


def evaluate(request: EvaluationRequest, as_json: bool) -> bool:
    """Evaluate a model and print its scores. False: its embeddings are unusable on some task."""
    model, tasks, scores = measure(request)
    benchmarks = ", ".join(dict.fromkeys(task.benchmark for task in tasks))
    part = f" (part {request.shard} of {len(tasks)} tasks)" if request.shard else ""
    _print(model, f"{benchmarks}{part} · mteb {VERSION}", scores, as_json)
    return all(score.score is not None for score in scores)


def measure(request: EvaluationRequest) -> Measured:
    """The scores of a model: those on disk, and the others, which are measured now. UserError: no model, or no task."""
    all_tasks = select_tasks(request.tiers, request.folders)
    tasks = shard_of(all_tasks, request.shard) if request.shard else all_tasks
    check_engine(request.engine)
    model, console = open_model(request.model), progress_console()
    if isinstance(model.embed, TfIdf) and any(task.texts is None for task in all_tasks):
        raise UserError(
            "tfidf cannot be evaluated on --tier: it counts the words of local tasks. Write --tasks DIR."
        )
    if missing_scores(model, tasks):
        check_home(model.home, _remedy(model))
    if request.engine == RAY:
        evaluate_on_ray(request, model, tasks, console)
    return Measured(model, all_tasks, evaluate_tasks(model, tasks, console))


def _remedy(model: EvaluationModel) -> str:
    """What to do where the scores' folder cannot be written."""
    if model.run is None:
        return "Make room, or start the command in a folder that can be written."
    return "Make room or the folder writable, or evaluate an export of the run: unsee export."


def _print(model: EvaluationModel, suffix: str, scores: Sequence[TaskScore], as_json: bool) -> None:
    title = f"{model.name} {model.revision} · {suffix}"
    identity = ModelIdentity(model.name, model.revision)
    warnings = score_table.warnings(scores)
    if as_json:
        print(json.dumps(score_table.summary(title, identity, scores) | {"warnings": warnings}, indent=1))
        return
    console = Console(markup=False, emoji=False)
    console.print(score_table.table(title, scores))
    for sentence in warnings:
        console.print(sentence)
    console.print(f"Scores: {model.home}", soft_wrap=True)


def prefetch(model: str, tiers: Sequence[str]) -> None:
    """Load the data of published tasks, and a Hub model, into this machine's cache: where there is a network."""
    console, tasks = progress_console(), published(tiers)
    with counting(console, len(tasks), "tasks") as begin:
        for task in tasks:
            begin(task.name)
            mteb_suite.prefetch(task)
    opened = open_model(model)
    console.print(f"{len(tasks)} tasks and {opened.name} are on this machine. Offline: HF_HUB_OFFLINE=1.")
