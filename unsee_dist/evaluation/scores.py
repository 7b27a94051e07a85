"""Scores on disk: one JSON a task in the folder of a model, so that shards of a suite merge by being there.

A record: task, group, benchmark, metric, score (x 100; null = unusable, and `unusable` says why), data (a digest
of the task's data, or the Hub's revision), mteb (its version), model {name, revision}, geometry (see
geometry.py), seconds; of STS also pairs {cosines, scores} and tfidf (the floor, x 100).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unsee_dist.errors import UserError, writing
from unsee_dist.files.atomic import write_file

ScoreRecord = dict[str, Any]


def keep(home: Path, record: Mapping[str, Any]) -> None:
    """Write a record into a model's folder; a reader sees the old one or the new one."""
    name = f"{record['task']}.json".replace("/", "__")
    with writing(home / name):
        home.mkdir(parents=True, exist_ok=True)
        write_file(home / name, json.dumps(record) + "\n")


def kept(home: Path) -> dict[str, ScoreRecord]:
    """The records of a model by task. ValueError when a file is not one of ours."""
    found = {}
    for path in sorted(home.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            found[str(record["task"])] = record
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is not a score of `unsee evaluate`. Remove it, evaluate again."
            ) from error
    return found


def same_question(record: ScoreRecord | None, data: str, mteb: str, revision: str) -> bool:
    """Whether a record answers for this data, this version of mteb and this model."""
    return record is not None and (
        (record["data"], record["mteb"], record["model"]["revision"]) == (data, mteb, revision)
    )
