"""Tasks evaluated side by side on a Ray cluster, one a worker; the scores are those of a single process.

The nodes share a file system, as those of a training job do: a worker opens the model and the files by the paths
of the command, and this process writes the scores.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console

from unsee_dist.data.processes import RAY
from unsee_dist.errors import UserError
from unsee_dist.evaluation.models import EvaluationModel, open_model
from unsee_dist.evaluation.mteb_tasks import EvaluationTask
from unsee_dist.evaluation.scores import write_score
from unsee_dist.evaluation.tasks import EvaluationRequest, evaluate_tasks, missing_scores, select_tasks
from unsee_dist.metrics.task_score import TaskScore


class RemoteTask(NamedTuple):
    """One task for a worker: the command, the folder it was started in, and the name of the task."""

    request: EvaluationRequest
    cwd: str
    task: str


def check_engine(engine: str | None) -> None:
    """UserError: --engine names none."""
    if engine not in (None, RAY):
        raise UserError(f"--engine {engine} is unknown. Write --engine ray, or leave it out.")


def evaluate_on_ray(
    request: EvaluationRequest, model: EvaluationModel, tasks: Sequence[EvaluationTask], console: Console
) -> None:
    """Measure and write the missing scores, on the cluster of RAY_ADDRESS, else on this machine's cores.

    UserError: no cluster answers, or a worker opened another model under the same path.
    """
    missing = [RemoteTask(request, os.getcwd(), task.name) for task in missing_scores(model, tasks)]
    if not missing:
        return
    from unsee_dist.ray_pool.cluster import connected
    from unsee_dist.ray_pool.tasks import map_unordered

    with connected():
        for done, (index, score) in enumerate(map_unordered(evaluate_remote, missing), start=1):
            console.print(f"{done}/{len(missing)} {missing[index].task}", style="dim")
            revision = score.model.revision
            if revision != model.revision:
                raise UserError(
                    f"{request.model} is revision {model.revision} here and {revision} on a worker: its files changed "
                    "meanwhile, or the nodes do not share them. Put it where all nodes see the same files."
                )
            write_score(model.home, score)


def evaluate_remote(remote: RemoteTask) -> TaskScore:
    """One task, on a worker."""
    request = remote.request
    with contextlib.chdir(remote.cwd):
        tasks = [task for task in select_tasks(request.tiers, request.folders) if task.name == remote.task]
        with open(os.devnull, "w") as nowhere:
            (score,) = evaluate_tasks(open_model(request.model), tasks, Console(file=nowhere))
    return score
