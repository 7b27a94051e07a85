"""Encoders side by side: per task and group, seeds as mean ± deviation, and a sentence for each row against the first.

A row is an encoder: one model, or the runs that differ only in their seed. A mean over tasks is shown only where every
task has a score. Deviations are over seeds (n − 1), bootstrap intervals over sentence pairs: they answer two questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from unsee_dist.errors import UserError
from unsee_dist.evaluation.intervals import ScoreDifference, paired_difference
from unsee_dist.evaluation.score_table import GROUPS
from unsee_dist.metrics.task_score import TaskScore

BESIDE = 4  # columns of scores beside each other that fit a terminal


@dataclass(frozen=True)
class ComparisonRow:
    """An encoder: its name, and for each seed the scores by task."""

    name: str
    seeds: tuple[Mapping[str, TaskScore], ...]

    def of_task(self, task: str) -> list[TaskScore]:
        """The scores of all seeds, [] when a seed has none."""
        scores = [seed[task] for seed in self.seeds if task in seed]
        return scores if len(scores) == len(self.seeds) else []

    def values(self, task: str) -> list[float] | None:
        """By seed; None when a seed was not evaluated or is unusable."""
        values = [score.score for score in self.of_task(task) if score.score is not None]
        return values if len(values) == len(self.seeds) else None

    def mean(self, tasks: Sequence[str]) -> list[float] | None:
        """By seed, the mean over the tasks; None when one is missing."""
        by_task = [values for task in tasks if (values := self.values(task)) is not None]
        if len(by_task) < len(tasks):
            return None
        return [float(np.mean(of_seed)) for of_seed in zip(*by_task, strict=True)]

    def unusable(self) -> list[str]:
        """The reasons for which a seed has no score, each once."""
        reasons = (score.unusable for seed in self.seeds for score in seed.values())
        return list(dict.fromkeys(reason for reason in reasons if reason))


class ComparisonDict(TypedDict):
    """The JSON of `unsee compare --json`."""

    base: str
    benchmarks: str
    scores: dict[str, dict[str, list[float] | None]]
    differences: dict[str, dict[str, dict[str, float]]]
    sentences: list[str]


def tasks_of(rows: Sequence[ComparisonRow]) -> dict[str, list[str]]:
    """All tasks by group, the paper's order first. UserError: two rows were evaluated on different data."""
    first: dict[str, TaskScore] = {}
    for row in rows:
        for score in (score for seed in row.seeds for score in seed.values()):
            other = first.setdefault(score.task, score)
            for name, mine, theirs in (("data", score.data, other.data), ("mteb", score.mteb, other.mteb)):
                if mine != theirs:
                    raise UserError(
                        f"{score.task}: {row.name} was evaluated on {name} {mine}, another model on {theirs}. "
                        "Evaluate both again."
                    )
    names = [*GROUPS, *sorted({score.group for score in first.values()} - set(GROUPS))]
    groups = {name: sorted(task for task, score in first.items() if score.group == name) for name in names}
    return {name: tasks for name, tasks in groups.items() if tasks}


def check_common(rows: Sequence[ComparisonRow]) -> None:
    """UserError: a row has no task in common with the first."""
    base, *others = rows
    for row in others:
        theirs, ours = (sorted({task for seed in each.seeds for task in seed}) for each in (base, row))
        if not any(base.of_task(task) and row.of_task(task) for task in ours):
            raise UserError(
                f"{row.name} and {base.name} have no task in common: {_some(ours)} against {_some(theirs)}. Evaluate both on "
                "the same with unsee evaluate MODEL --tasks DIR (or --tier NAME)."
            )


def _some(names: Sequence[str]) -> str:
    """Some of many names."""
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])


def benchmarks(rows: Sequence[ComparisonRow]) -> str:
    """Benchmarks and mteb's versions, such as "MTEB(eng, v1) · mteb 2.26.24"."""
    scores = [score for row in rows for seed in row.seeds for score in seed.values()]
    names, versions = {score.benchmark for score in scores}, {score.mteb for score in scores}
    return f"{', '.join(sorted(names))} · mteb {', '.join(sorted(versions))}"


def columns(rows: Sequence[ComparisonRow]) -> list[tuple[str, list[str]]]:
    """The table's columns: each task, each group of several tasks, and all; with the tasks they average."""
    groups = tasks_of(rows)
    named: list[tuple[str, list[str]]] = []
    for group, tasks in groups.items():
        named += [(task, [task]) for task in tasks]
        named += [(f"{group} ({len(tasks)})", tasks)] if len(tasks) > 1 else []
    every = [task for tasks in groups.values() for task in tasks]
    return named + ([(f"all ({len(every)})", every)] if len(groups) > 1 else [])


def cell(values: Sequence[float] | None) -> str:
    """ "71.20 ± 0.31" over seeds, "71.20" for one, a dash for none."""
    if values is None:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def difference(row: ComparisonRow, base: ComparisonRow, task: str) -> ScoreDifference | None:
    """Row minus base on an STS task with the paired interval; None where a row has no pairs."""
    mine, theirs = ([score.pairs for score in each.of_task(task)] for each in (row, base))
    a = [pairs for pairs in mine if pairs is not None]
    b = [pairs for pairs in theirs if pairs is not None]
    if not a or not b or len(a) < len(mine) or len(b) < len(theirs):
        return None
    a_SN, b_SN = (np.array([pairs.cosines for pairs in each]) for each in (a, b))
    return paired_difference(a_SN, b_SN, np.array(a[0].scores))


def sentence(row: ComparisonRow, base: ComparisonRow, groups: Mapping[str, Sequence[str]]) -> str:
    """The difference of two rows in one sentence."""
    for each in (row, base):
        if each.unusable():
            return f"{each.name} cannot be compared: {each.unusable()[0]}."
    of_sts = {task: _sts_difference(row, base, task) for task in groups.get("STS", ())}
    parts = [text for text in of_sts.values() if text]
    few = (
        " The intervals are over pairs, not over seeds."
        if parts and min(len(row.seeds), len(base.seeds)) < 2
        else ""
    )
    others = [task for tasks in groups.values() for task in tasks if not of_sts.get(task)]
    gaps = {task: _gap(row, base, task) for task in others}
    parts += [f"{gap:+.2f} on {task}" for task, gap in gaps.items() if gap is not None]
    seeds = " and ".join(f"{len(each.seeds)} seed{'s' * (len(each.seeds) > 1)}" for each in (row, base))
    return f"{row.name} against {base.name} ({seeds}): {'; '.join(parts)}.{few}"


def _sts_difference(row: ComparisonRow, base: ComparisonRow, task: str) -> str:
    gap, score = difference(row, base, task), next(iter(row.of_task(task)), None)
    if gap is None or score is None or score.pairs is None:
        return ""
    count = len(score.pairs.scores)
    return f"{gap.value:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}] on {task}, {gap.verdict} on {count:,} pairs"


def _gap(row: ComparisonRow, base: ComparisonRow, task: str) -> float | None:
    mine, theirs = row.values(task), base.values(task)
    return None if mine is None or theirs is None else float(np.mean(mine) - np.mean(theirs))


def grid(rows: Sequence[ComparisonRow]) -> list[list[str]]:
    """The table, its header first: an encoder a line; a task a line where tasks are many and more than encoders."""
    named = columns(rows)
    lines = [["encoder", "seeds", *(name for name, _ in named)]]
    lines += [[row.name, str(len(row.seeds)), *(cell(row.mean(tasks)) for _, tasks in named)] for row in rows]
    if len(named) <= max(len(rows), BESIDE):
        return lines
    return [list(line) for line in zip(*lines, strict=True)]


def markdown(rows: Sequence[ComparisonRow]) -> str:
    """The table and the sentences."""
    head, *below = ["| " + " | ".join(line) + " |" for line in grid(rows)]
    lines = [head, "|---|" + "---:|" * (head.count("|") - 2), *below]
    return "\n".join(
        [*lines, "", f"{benchmarks(rows)}; scores x 100.", "", *(f"- {text}" for text in sentences(rows)), ""]
    )


def sentences(rows: Sequence[ComparisonRow]) -> list[str]:
    """One for each row against the first, and one for each task on which rows are below the TF-IDF baseline."""
    groups = tasks_of(rows)
    against_first = [sentence(row, rows[0], groups) for row in rows[1:]]
    return against_first + [text for task in groups.get("STS", ()) if (text := _below_baseline(rows, task))]


def _below_baseline(rows: Sequence[ComparisonRow], task: str) -> str:
    """Which rows score less than TF-IDF on an STS task, as both are shown; "" for none."""
    below, baseline = [], None
    for row in rows:
        values, scores = row.values(task), row.of_task(task)
        if values is None or (tfidf := scores[0].tfidf) is None:
            continue
        if round(float(np.mean(values)), 2) < round(tfidf, 2):
            below.append(row.name)
            baseline = tfidf if baseline is None else baseline
    if baseline is None:
        return ""
    return f"Below TF-IDF ({baseline:.2f}), which only counts words, on {task}: {', '.join(below)}."


def as_dict(rows: Sequence[ComparisonRow]) -> ComparisonDict:
    """Scores by seed, differences with intervals, sentences."""
    named, groups = columns(rows), tasks_of(rows)
    scores = {row.name: {name: row.mean(tasks) for name, tasks in named} for row in rows}
    differences = {
        row.name: {
            task: gap._asdict() for task in groups.get("STS", ()) if (gap := difference(row, rows[0], task))
        }
        for row in rows[1:]
    }
    return {
        "base": rows[0].name,
        "benchmarks": benchmarks(rows),
        "scores": scores,
        "differences": differences,
        "sentences": sentences(rows),
    }
