"""The tasks of a command, and the scores of a model on them: those on disk, and the others, which are measured now."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from unsee_dist.errors import UserError
from unsee_dist.evaluation.local_tasks import local_tasks
from unsee_dist.evaluation.models import EvaluationModel
from unsee_dist.evaluation.mteb_suite import Encoder, evaluate_task
from unsee_dist.evaluation.mteb_tasks import TIERS, VERSION, EvaluationTask, local, published
from unsee_dist.evaluation.scores import is_current, owner_name, read_scores, write_score
from unsee_dist.files.owner import owned
from unsee_dist.metrics.task_score import TaskScore
from unsee_dist.metrics.tfidf import TfIdf
from unsee_dist.tracking.bars import counting

IN_USE = "Wait until it has measured it: the same command then reads the score. Or stop it."


@dataclass(frozen=True)
class EvaluationRequest:
    """The arguments of `unsee evaluate`: MODEL, tiers or names of published tasks, folders of local tasks.

    shard: "k/n" = only the k-th of n parts of the tasks; the same command without it reads the scores of all parts.
    engine: "ray" = side by side on a Ray cluster; None = one after another in this process.
    """

    model: str
    tiers: Sequence[str] = ()
    folders: Sequence[Path] = ()
    shard: str | None = None
    engine: str | None = None


def select_tasks(tiers: Sequence[str], folders: Sequence[Path]) -> list[EvaluationTask]:
    """The tasks of a command, each name once. UserError: there is none, or two share a name."""
    if not tiers and not folders:
        raise UserError(
            f"There is no task to evaluate on. Write --tier {' | '.join(TIERS)} | TASK of mteb, or --tasks DIR."
        )
    tasks = published(tiers) if tiers else []
    for folder in folders:
        tasks += [local(task) for task in local_tasks(folder)]
    names = [task.name for task in tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"Two tasks are called {twice[0]}. Rename the file of one, or its entry in tasks.yaml."
        )
    return tasks


def shard_of(tasks: Sequence[EvaluationTask], shard: str) -> Sequence[EvaluationTask]:
    """The k-th of n parts, for shard = "k/n"; the n parts are all tasks, each once."""
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard {shard} is not a part. Write k/n with k from 1 to n, such as 1/8.")
    return tasks[int(match[1]) - 1 :: int(match[2])]


def missing_scores(model: EvaluationModel, tasks: Sequence[EvaluationTask]) -> list[EvaluationTask]:
    """The tasks without a score for this data, this version of mteb and this model."""
    scores, revision = read_scores(model.home), model.revision
    return [task for task in tasks if not is_current(scores.get(task.name), task.data, VERSION, revision)]


def evaluate_tasks(
    model: EvaluationModel, tasks: Sequence[EvaluationTask], console: Console
) -> list[TaskScore]:
    """The scores of the tasks, in order; those that are missing on disk are measured and written."""
    missing = missing_scores(model, tasks)
    encoder = Encoder(model.embed, model.name, model.revision, model.unusable() if missing else None)
    with counting(console, len(missing), "tasks") as begin:
        for task in missing:
            begin(task.name)
            if isinstance(model.embed, TfIdf):
                model.embed.prepare(task.texts or ())
            _measure(model, task, encoder)
    scores = read_scores(model.home)
    return [scores[task.name] for task in tasks]


def _measure(model: EvaluationModel, task: EvaluationTask, encoder: Encoder) -> None:
    """Measure and write a score, once: the parts of a benchmark share a folder, so each task has an owner."""
    with owned(model.home / owner_name(task.name), f"{task.name} of {model.name}", IN_USE):
        if missing_scores(model, [task]):  # else another command has just measured it
            write_score(model.home, evaluate_task(task, encoder, model.home / "mteb"))
