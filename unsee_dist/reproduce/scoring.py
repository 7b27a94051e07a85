"""The scores of tasks: of each trained encoder, best/ where its run has one, and of the encoder that it began with.

Both are measured by `unsee evaluate`'s own code, with the pooling and the length of the runs; a score on disk is not measured
again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import xxhash

from unsee_dist.evaluation.models import EvaluationModel, open_model
from unsee_dist.evaluation.scores import EVALUATION
from unsee_dist.evaluation.tasks import EvaluationRequest, evaluate_tasks, select_tasks
from unsee_dist.log import progress_console
from unsee_dist.metrics.task_score import TaskScore
from unsee_dist.model.encoder import load_encoder, load_tokenizer
from unsee_dist.publish.sentence_transformers import MODULES, write_encoder
from unsee_dist.report.run_files import open_run
from unsee_dist.reproduce.units import Unit
from unsee_dist.tracking.note import EXPORTS

Scores = Mapping[str, TaskScore]
UNTRAINED = "untrained"


def score_run(unit: Unit, tasks: EvaluationRequest) -> Scores:
    """By task; {} where there is none, or the run has no encoder."""
    if not (tasks.tiers or tasks.folders) or not _has_encoder(unit.folder):
        return {}
    return _scores(open_model(str(unit.folder)), tasks)


def score_untrained(unit: Unit, out: Path, tasks: EvaluationRequest) -> Scores:
    """The scores of the encoder that a unit begins with, which units share where they read it in the same way."""
    if not (tasks.tiers or tasks.folders):
        return {}
    model = unit.config.model
    key = xxhash.xxh3_64_hexdigest(f"{model.encoder} {model.pooling} {model.max_tokens}".encode())[:8]
    folder = out / UNTRAINED / key
    if not (folder / "encoder" / MODULES).is_file():
        encoder = load_encoder(model.encoder, None)
        state = {name: tensor.detach() for name, tensor in encoder.state_dict().items()}
        tokenizer = load_tokenizer(model.encoder)
        write_encoder(folder / "encoder", state, encoder.config, tokenizer, model.pooling, model.max_tokens)
    opened = open_model(str(folder / "encoder"))
    return _scores(replace(opened, home=folder / EVALUATION), tasks)


def _scores(model: EvaluationModel, tasks: EvaluationRequest) -> Scores:
    scores = evaluate_tasks(model, select_tasks(tasks.tiers, tasks.folders), progress_console())
    return {score.task: score for score in scores}


def _has_encoder(run: Path) -> bool:
    return open_run(run).state == "complete" and any((run / name).is_dir() for name in EXPORTS)
