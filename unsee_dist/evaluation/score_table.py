"""Scores by task group, in the order of the MTEB paper: a table for people, a dict for machines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from rich.table import Table

from unsee_dist.metrics.task_score import ModelIdentity, TaskScore

GROUPS = (
    "Classification",
    "Clustering",
    "PairClassification",
    "Reranking",
    "Retrieval",
    "STS",
    "Summarization",
)
OPTIONAL = ("unusable", "tfidf")  # left out of the JSON when a task has none


def by_group(scores: Iterable[TaskScore]) -> dict[str, list[TaskScore]]:
    """Scores by group, the paper's seven groups first."""
    scores = list(scores)
    names = [*GROUPS, *sorted({score.group for score in scores} - set(GROUPS))]
    groups = {name: [score for score in scores if score.group == name] for name in names}
    return {name: members for name, members in groups.items() if members}


def mean(scores: Sequence[TaskScore]) -> float | None:
    """The mean score; None when a task has none: a mean over the rest would look like success."""
    values = [score.score for score in scores if score.score is not None]
    return sum(values) / len(values) if values and len(values) == len(scores) else None


def table(title: str, scores: Sequence[TaskScore]) -> Table:
    """A row a task, the mean of each group with several tasks, and the mean of all."""
    rows = Table("group", "task", "metric", title=title, title_justify="left", box=None)
    for name in ("score", "TF-IDF"):
        rows.add_column(name, justify="right")
    for group, members in by_group(scores).items():
        for place, score in enumerate(members):
            baseline = "" if score.tfidf is None else number(score.tfidf)
            rows.add_row(group if place == 0 else "", score.task, score.metric, number(score.score), baseline)
        if len(members) > 1:
            rows.add_row("", f"mean of {len(members)}", "", number(mean(members)), "", style="bold")
    if len(scores) > 1:
        rows.add_row("all", f"mean of {len(scores)} tasks", "", number(mean(scores)), "", style="bold")
    return rows


def summary(title: str, model: ModelIdentity, scores: Sequence[TaskScore]) -> dict[str, object]:
    """The JSON of `unsee evaluate --json`."""
    groups = {name: mean(members) for name, members in by_group(scores).items()}
    tasks = [_as_dict(score) for score in scores]
    return {"title": title, "model": asdict(model), "groups": groups, "mean": mean(scores), "tasks": tasks}


def _as_dict(score: TaskScore) -> dict[str, object]:
    tree = asdict(score)
    del tree["pairs"]
    return {name: value for name, value in tree.items() if value is not None or name not in OPTIONAL}


def number(score: float | None) -> str:
    """Two digits; a dash for no score."""
    return "–" if score is None else f"{score:.2f}"


def warnings(scores: Iterable[TaskScore]) -> list[str]:
    """A sentence for each task whose embeddings are unusable, or whose score is below the TF-IDF baseline."""
    sentences = []
    for score in scores:
        if score.score is None:
            sentences.append(f"{score.task}: no score. {(score.unusable or 'unusable').capitalize()}.")
        elif score.below_tfidf:
            sentences.append(
                f"{score.task}: {number(score.score)} is below TF-IDF ({number(score.tfidf)}), which only counts words."
            )
    return sentences
