"""Scores by task group, in the order of the MTEB paper, as a table for people and as one dict for machines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

GROUPS = (
    "Classification",
    "Clustering",
    "PairClassification",
    "Reranking",
    "Retrieval",
    "STS",
    "Summarization",
)

ScoreRecord = Mapping[str, Any]


def by_group(records: Iterable[ScoreRecord]) -> dict[str, list[ScoreRecord]]:
    """Records by group, the paper's seven groups first."""
    records = list(records)
    names = [*GROUPS, *sorted({str(record["group"]) for record in records} - set(GROUPS))]
    found = {name: [record for record in records if record["group"] == name] for name in names}
    return {name: inner for name, inner in found.items() if inner}


def mean(records: Sequence[ScoreRecord]) -> float | None:
    """The mean score; None when a record has none: a mean over the rest would look like success."""
    scores = [record["score"] for record in records]
    return None if not scores or None in scores else sum(scores) / len(scores)


def table(title: str, records: Sequence[ScoreRecord]) -> Table:
    """Task by task, each group's mean under it where it has several tasks, and the mean of all."""
    made = Table("group", "task", "metric", title=title, title_justify="left", box=None)
    for name in ("score", "TF-IDF"):
        made.add_column(name, justify="right")
    for group, inner in by_group(records).items():
        for place, record in enumerate(inner):
            floor = number(record["tfidf"]) if "tfidf" in record else ""
            made.add_row(
                group if place == 0 else "", record["task"], record["metric"], number(record["score"]), floor
            )
        if len(inner) > 1:
            made.add_row("", f"mean of {len(inner)}", "", number(mean(inner)), "", style="bold")
    if len(records) > 1:
        made.add_row("all", f"mean of {len(records)} tasks", "", number(mean(records)), "", style="bold")
    return made


def summary(title: str, model: Mapping[str, str], records: Sequence[ScoreRecord]) -> dict[str, Any]:
    """What --json prints."""
    groups = {name: mean(inner) for name, inner in by_group(records).items()}
    plain = [{key: value for key, value in record.items() if key != "pairs"} for record in records]
    return {"title": title, "model": dict(model), "groups": groups, "mean": mean(records), "tasks": plain}


def number(score: float | None) -> str:
    """Two digits; a dash for what has no score."""
    return "–" if score is None else f"{score:.2f}"


def verdicts(records: Iterable[ScoreRecord]) -> list[str]:
    """What must be said beside the numbers: the unusable, and what loses against counting words."""
    said = []
    for record in records:
        if record["score"] is None:
            said.append(f"{record['task']}: no score. {record['unusable'].capitalize()}.")
        elif round(record["score"], 2) < round(record.get("tfidf", float("-inf")), 2):  # as they are shown
            floor = number(record["tfidf"])
            said.append(
                f"{record['task']}: {number(record['score'])} is below TF-IDF ({floor}), which only counts words."
            )
    return said
