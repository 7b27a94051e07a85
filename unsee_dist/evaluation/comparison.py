"""Encoders side by side: per task and group, seeds as mean ± deviation, and one sentence against the first.

A row is an encoder: one model, or the runs that differ in nothing but their seed. Means over tasks stand only where
every task has a score. Deviations are over seeds (n − 1), bootstrap intervals over pairs: they answer two questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unsee_dist.errors import UserError
from unsee_dist.evaluation.intervals import Difference, paired_difference
from unsee_dist.evaluation.score_table import GROUPS

ScoreRecord = Mapping[str, Any]

BESIDE = 4  # columns of scores beside each other that fit a terminal


@dataclass(frozen=True)
class Row:
    """An encoder: its name, and for each seed the records by task."""

    name: str
    seeds: tuple[Mapping[str, ScoreRecord], ...]

    def records(self, task: str) -> list[ScoreRecord]:
        """Those of all seeds, [] when a seed has none."""
        found = [seed[task] for seed in self.seeds if task in seed]
        return found if len(found) == len(self.seeds) else []

    def scores(self, task: str) -> list[float] | None:
        """By seed; None when a seed was not judged or is unusable."""
        found = [record["score"] for record in self.records(task)]
        return None if not found or None in found else found

    def mean(self, tasks: Sequence[str]) -> list[float] | None:
        """By seed, the mean over the tasks; None when one is missing."""
        by_task = [self.scores(task) for task in tasks]
        known = [scores for scores in by_task if scores is not None]
        return (
            [float(np.mean(each)) for each in zip(*known, strict=True)] if len(known) == len(tasks) else None
        )

    def unusable(self) -> list[str]:
        """Why, where a seed has no score: each reason once."""
        said = (record.get("unusable") for seed in self.seeds for record in seed.values())
        return list(dict.fromkeys(reason for reason in said if reason))


def tasks_of(rows: Sequence[Row]) -> dict[str, list[str]]:
    """All tasks by group, the paper's order first. ValueError when two rows answered different questions."""
    seen: dict[str, ScoreRecord] = {}
    for row in rows:
        for record in (record for seed in row.seeds for record in seed.values()):
            first = seen.setdefault(record["task"], record)
            for key in ("data", "mteb"):
                if record[key] != first[key]:
                    raise UserError(
                        f"{record['task']}: {row.name} was judged on {key} {record[key]}, another model on "
                        f"{first[key]}. Evaluate both again."
                    )
    order = [*GROUPS, *sorted({str(record["group"]) for record in seen.values()} - set(GROUPS))]
    found = {
        group: sorted(task for task, record in seen.items() if record["group"] == group) for group in order
    }
    return {group: tasks for group, tasks in found.items() if tasks}


def judged_on(rows: Sequence[Row]) -> str:
    """Benchmarks and mteb's versions, such as "MTEB(eng, v1) · mteb 2.26.24"."""
    records = [record for row in rows for seed in row.seeds for record in seed.values()]
    benchmarks, versions = ({str(record[key]) for record in records} for key in ("benchmark", "mteb"))
    return f"{', '.join(sorted(benchmarks))} · mteb {', '.join(sorted(versions))}"


def columns(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """The table's columns: each task, each group of several tasks, and all; with the tasks they average."""
    groups = tasks_of(rows)
    found = []
    for group, tasks in groups.items():
        found += [(task, [task]) for task in tasks]
        found += [(f"{group} ({len(tasks)})", tasks)] if len(tasks) > 1 else []
    every = [task for tasks in groups.values() for task in tasks]
    return found + ([(f"all ({len(every)})", every)] if len(groups) > 1 else [])


def cell(scores: Sequence[float] | None) -> str:
    """ "71.20 ± 0.31" over seeds, "71.20" for one, a dash for none."""
    if scores is None:
        return "–"
    if len(scores) == 1:
        return f"{scores[0]:.2f}"
    return f"{np.mean(scores):.2f} ± {np.std(scores, ddof=1):.2f}"


def difference(row: Row, base: Row, task: str) -> Difference | None:
    """Row minus base on an STS task with the paired interval; None where a row has no pairs."""
    mine, theirs = row.records(task), base.records(task)
    if not mine or not theirs or not all("pairs" in record for record in [*mine, *theirs]):
        return None
    a_SN, b_SN = (np.array([record["pairs"]["cosines"] for record in each]) for each in (mine, theirs))
    return paired_difference(a_SN, b_SN, np.array(mine[0]["pairs"]["scores"]))


def sentence(row: Row, base: Row, groups: Mapping[str, Sequence[str]]) -> str:
    """What a reader should take from the two rows."""
    for each in (row, base):
        if each.unusable():
            return f"{each.name} cannot be compared: {each.unusable()[0]}."
    parts = []
    for task in groups.get("STS", ()):
        if (found := difference(row, base, task)) is not None:
            pairs = len(row.records(task)[0]["pairs"]["scores"])
            verdict = "better" if found.low > 0 else "worse" if found.high < 0 else "no difference to be seen"
            interval = f"[{found.low:+.2f}, {found.high:+.2f}]"
            parts.append(f"{found.value:+.2f} {interval} on {task}, {verdict} on {pairs:,} pairs")
    few = (
        " The intervals are over pairs, not over seeds."
        if parts and min(len(row.seeds), len(base.seeds)) < 2
        else ""
    )
    others = [task for group, tasks in groups.items() for task in tasks if group != "STS"]
    gaps = {task: _gap(row, base, task) for task in others}
    parts += [f"{gap:+.2f} on {task}" for task, gap in gaps.items() if gap is not None]
    if not parts:
        return f"{row.name} and {base.name} have no task in common."
    seeds = " and ".join(f"{len(each.seeds)} seed{'s' * (len(each.seeds) > 1)}" for each in (row, base))
    return f"{row.name} against {base.name} ({seeds}): {'; '.join(parts)}.{few}"


def _gap(row: Row, base: Row, task: str) -> float | None:
    mine, theirs = row.scores(task), base.scores(task)
    return None if mine is None or theirs is None else float(np.mean(mine) - np.mean(theirs))


def grid(rows: Sequence[Row]) -> list[list[str]]:
    """The table, its header first: an encoder a line; a task a line where tasks are many and more than encoders."""
    shown = columns(rows)
    lines = [["encoder", "seeds", *(name for name, _ in shown)]]
    lines += [[row.name, str(len(row.seeds)), *(cell(row.mean(tasks)) for _, tasks in shown)] for row in rows]
    if len(shown) <= max(len(rows), BESIDE):
        return lines
    return [list(line) for line in zip(*lines, strict=True)]


def markdown(rows: Sequence[Row]) -> str:
    """The table and the sentences."""
    head, *below = ["| " + " | ".join(line) + " |" for line in grid(rows)]
    lines = [head, "|---|" + "---:|" * (head.count("|") - 2), *below]
    return "\n".join(
        [*lines, "", f"{judged_on(rows)}; scores x 100.", "", *(f"- {said}" for said in sentences(rows)), ""]
    )


def sentences(rows: Sequence[Row]) -> list[str]:
    """One for each row against the first, and one for each task on which rows lose to counting words."""
    groups = tasks_of(rows)
    against = [sentence(row, rows[0], groups) for row in rows[1:]]
    floors = [_below_floor(rows, task) for task in groups.get("STS", ())]
    return against + [said for said in floors if said]


def _below_floor(rows: Sequence[Row], task: str) -> str:
    """Which rows score less than TF-IDF on an STS task, as both are shown; "" for none."""
    scored = [(row, scores) for row in rows if (scores := row.scores(task)) is not None]
    floor = {row.name: row.records(task)[0].get("tfidf", -np.inf) for row, _ in scored}
    below = [row.name for row, scores in scored if round(np.mean(scores), 2) < round(floor[row.name], 2)]
    if not below:
        return ""
    return f"Below TF-IDF ({floor[below[0]]:.2f}), which only counts words, on {task}: {', '.join(below)}."


def as_dict(rows: Sequence[Row]) -> dict[str, Any]:
    """What --json prints: scores by seed, differences with intervals, sentences."""
    shown, groups = columns(rows), tasks_of(rows)
    found = {row.name: {name: row.mean(tasks) for name, tasks in shown} for row in rows}
    gaps = {
        row.name: {
            task: gap._asdict() for task in groups.get("STS", ()) if (gap := difference(row, rows[0], task))
        }
        for row in rows[1:]
    }
    return {
        "base": rows[0].name,
        "judged_on": judged_on(rows),
        "scores": found,
        "differences": gaps,
        "sentences": sentences(rows),
    }
