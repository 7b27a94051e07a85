"""Tasks judged side by side on a Ray cluster, one a worker; every record is what this process would have made.

The nodes share a file system, as those of a training job do: a worker opens the model and the files by the paths
typed here, and its scores go where this process puts its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console

from unsee_dist.errors import UserError
from unsee_dist.evaluation.models import Model, open_model
from unsee_dist.evaluation.mteb_suite import EvaluationTask
from unsee_dist.evaluation.scores import ScoreRecord, keep
from unsee_dist.evaluation.tasks import EvaluationRequest, choose, judge, unjudged


class RemoteTask(NamedTuple):
    """One task for a worker: the command as typed, in which folder, and the name of the task."""

    request: EvaluationRequest
    cwd: str
    task: str


def evaluate_on_ray(
    request: EvaluationRequest, model: Model, chosen: Sequence[EvaluationTask], console: Console
) -> None:
    """Judge on the cluster of RAY_ADDRESS, else on this machine's cores, what `model` was not judged on; keep it.

    ValueError: no cluster answers, or a worker found another model under the same path.
    """
    parts = [RemoteTask(request, os.getcwd(), one.name) for one in unjudged(model, chosen)]
    if not parts:
        return
    from unsee_dist.ray_pool.cluster import connected
    from unsee_dist.ray_pool.tasks import map_unordered

    with connected():
        for done, (index, record) in enumerate(map_unordered(work, parts), start=1):
            console.print(f"{done}/{len(parts)} {parts[index].task}", style="dim")
            found = record["model"]["revision"]
            if found != model.revision:
                raise UserError(
                    f"{request.model} is revision {model.revision} here and {found} on a worker: its files changed "
                    "meanwhile, or the nodes do not share them. Put it where all see the same files."
                )
            keep(model.home, record)


def work(part: RemoteTask) -> ScoreRecord:
    """What a worker does."""
    with contextlib.chdir(part.cwd):
        (one,) = [one for one in choose(part.request.tiers, part.request.folders) if one.name == part.task]
        with open(os.devnull, "w") as nothing:
            (record,) = judge(open_model(part.request.model), [one], Console(file=nothing))
    return record
