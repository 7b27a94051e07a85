"""`unsee evaluate`: a model, tasks, a table. What was judged before is read, not judged again."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console

from unsee_dist.evaluation import mteb_suite as suite
from unsee_dist.evaluation.scores import Record
from unsee_dist.evaluation.tfidf import TfIdf
from unsee_dist.judge.models import Model, open_model
from unsee_dist.judge.spread import spread
from unsee_dist.judge.tasks import Asked, choose, judge, part_of
from unsee_dist.report import score_table

ENGINES = ("ray",)


def evaluate(asked: Asked, as_json: bool) -> bool:
    """Judge a model, print the table. False when it is unusable on some task. ValueError: a sentence."""
    chosen = choose(asked.tiers, asked.folders)
    mine = part_of(chosen, asked.shard) if asked.shard else chosen
    if asked.engine not in (None, *ENGINES):
        raise ValueError(f"--engine {asked.engine} is unknown. Write --engine ray, or leave it out.")
    model, console = open_model(asked.model), Console(stderr=True)
    if isinstance(model.embed, TfIdf) and any(one.texts is None for one in chosen):
        raise ValueError("tfidf counts the words of the tasks' own files: give it --tasks DIR, not --tier.")
    if asked.engine == "ray":
        spread(asked, model, mine, console)
    records = judge(model, mine, console)
    benchmarks = ", ".join(dict.fromkeys(one.benchmark for one in chosen))
    part = f" (part {asked.shard} of {len(chosen)} tasks)" if asked.shard else ""
    _print(model, f"{benchmarks}{part} · mteb {suite.VERSION}", records, as_json)
    return all(record["score"] is not None for record in records)


def _print(model: Model, suffix: str, records: Sequence[Record], as_json: bool) -> None:
    title = f"{model.name} {model.revision} · {suffix}"
    identity = {"name": model.name, "revision": model.revision}
    said = score_table.verdicts(records)
    if as_json:
        print(json.dumps(score_table.summary(title, identity, records) | {"verdicts": said}, indent=1))
        return
    console = Console()
    console.print(score_table.table(title, records))
    for sentence in said:
        console.print(sentence)
    console.print(f"Scores: {model.home}")


def prefetch(given: str, tiers: Sequence[str]) -> None:
    """Bring the data of published tasks, and a Hub model, into this machine's cache: on a node with internet."""
    console = Console(stderr=True)
    for place, one in enumerate(chosen := suite.published(tiers), start=1):
        console.print(f"{place}/{len(chosen)} {one.name}", style="dim")
        suite.prefetch(one)
    model = open_model(given)
    console.print(f"{len(chosen)} tasks and {model.name} are on this machine. Offline: HF_HUB_OFFLINE=1.")
