"""The tasks of a command, and the records of a model on them: those kept from before, the others made now."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from unsee_dist.errors import UserError
from unsee_dist.evaluation import mteb_suite as suite
from unsee_dist.evaluation.local_tasks import local_tasks
from unsee_dist.evaluation.models import Model
from unsee_dist.evaluation.mteb_suite import EvaluationTask
from unsee_dist.evaluation.scores import ScoreRecord, keep, kept, same_question
from unsee_dist.metrics.tfidf import TfIdf


@dataclass(frozen=True)
class EvaluationRequest:
    """A command: MODEL, tiers and names of published tasks, folders of local ones, which part of them, and on what.

    shard: "k/n" = the k-th of n parts; the same call without it finds what the parts have judged.
    engine: "ray" = side by side on a Ray cluster; None = one after another, here.
    """

    model: str
    tiers: Sequence[str] = ()
    folders: Sequence[Path] = ()
    shard: str | None = None
    engine: str | None = None


def choose(tiers: Sequence[str], folders: Sequence[Path]) -> list[EvaluationTask]:
    """The tasks request for, each name once. ValueError when none is, or two tasks share a name."""
    if not tiers and not folders:
        raise UserError(
            f"Say what to judge on: --tier {' | '.join(suite.TIERS)} | TASK of mteb, or --tasks DIR."
        )
    chosen = suite.published(tiers) if tiers else []
    for folder in folders:
        chosen += [suite.local(task) for task in local_tasks(folder)]
    names = [one.name for one in chosen]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"Two tasks are called {twice[0]}. Rename one: its name is its file's, or in tasks.yaml."
        )
    return chosen


def part_of(chosen: Sequence[EvaluationTask], shard: str) -> Sequence[EvaluationTask]:
    """The k-th of n parts, for shard = "k/n"; the n parts are all tasks, each once."""
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--shard {shard} is no part. Write k/n with k from 1 to n, such as 1/8.")
    return chosen[int(found[1]) - 1 :: int(found[2])]


def unjudged(model: Model, chosen: Sequence[EvaluationTask]) -> list[EvaluationTask]:
    """The tasks without a record of this data, this version of mteb and this model."""
    before, at = kept(model.home), model.revision
    return [one for one in chosen if not same_question(before.get(one.name), one.data, suite.VERSION, at)]


def judge(model: Model, chosen: Sequence[EvaluationTask], console: Console) -> list[ScoreRecord]:
    """The records of the tasks, in order; those that were missing are kept now."""
    encoder = suite.Encoder(model.embed, model.name, model.revision)
    for place, one in enumerate(left := unjudged(model, chosen), start=1):
        console.print(f"{place}/{len(left)} {one.name}", style="dim")
        if isinstance(model.embed, TfIdf):
            model.embed.prepare(one.texts or ())
        record = suite.score(one, encoder, model.home / "mteb")
        keep(model.home, record | {"model": {"name": model.name, "revision": model.revision}})
    found = kept(model.home)
    return [found[one.name] for one in chosen]
