"""Scores on disk: one JSON file a task in the folder of a model, so the parts of a benchmark need no merging.

{"format": 2, "task": "STS12", "score": 71.2, ..., "digest": ...}        the fields of metrics/task_score.py
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from unsee_dist.errors import writing
from unsee_dist.files.folders import make_folder, remove_empty
from unsee_dist.files.records import RecordFile
from unsee_dist.files.room import try_file
from unsee_dist.metrics.task_score import TaskScore

FORMAT = 2  # 1 had no digest
EVALUATION = "evaluation"  # in a run's folder: the scores of its encoders
REMEDY = "Delete it, and evaluate again: unsee evaluate."


@cache
def _file(name: str) -> RecordFile[TaskScore]:
    return RecordFile(name, TaskScore, FORMAT, REMEDY)


def write_score(home: Path, score: TaskScore) -> None:
    """Write a score into a model's folder, in one move. UserError: it cannot be written."""
    with writing(home):
        home.mkdir(parents=True, exist_ok=True)
    _file(f"{_stem(score.task)}.json").write(home, score)


def check_home(home: Path, remedy: str) -> None:
    """UserError, before a task is measured: no score can be written into a model's folder. The folder is made."""
    with writing(f"{home}, where the scores go,", remedy):
        new = make_folder(home)
        try:
            try_file(home / "score.json")
        except OSError:
            remove_empty(new)
            raise


def owner_name(task: str) -> str:
    """Of the file that names the process which measures a task."""
    return f"{_stem(task)}.owner"


def _stem(task: str) -> str:
    return task.replace("/", "__")


def read_scores(home: Path) -> dict[str, TaskScore]:
    """The scores in a model's folder, by task. UserError: a file is damaged, or has another format."""
    scores = (_file(path.name).read(home) for path in sorted(home.glob("*.json")))
    return {score.task: score for score in scores if score is not None}


def is_current(score: TaskScore | None, data: str, mteb: str, revision: str) -> bool:
    """Whether a score was measured on this data, with this version of mteb and this model."""
    return score is not None and (score.data, score.mteb, score.model.revision) == (data, mteb, revision)
