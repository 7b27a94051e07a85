"""`unsee evaluate`: a model, tasks, a table. What was judged before is read, not judged again."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console

from unsee_dist.errors import UserError
from unsee_dist.evaluation import mteb_suite as suite
from unsee_dist.evaluation import score_table
from unsee_dist.evaluation.models import Model, open_model
from unsee_dist.evaluation.on_ray import evaluate_on_ray
from unsee_dist.evaluation.scores import ScoreRecord
from unsee_dist.evaluation.tasks import EvaluationRequest, choose, judge, part_of
from unsee_dist.metrics.tfidf import TfIdf

ENGINES = ("ray",)


def evaluate(request: EvaluationRequest, as_json: bool) -> bool:
    """Judge a model, print the table. False when it is unusable on some task. ValueError: a sentence."""
    chosen = choose(request.tiers, request.folders)
    mine = part_of(chosen, request.shard) if request.shard else chosen
    if request.engine not in (None, *ENGINES):
        raise UserError(f"--engine {request.engine} is unknown. Write --engine ray, or leave it out.")
    model, console = open_model(request.model), Console(stderr=True)
    if isinstance(model.embed, TfIdf) and any(one.texts is None for one in chosen):
        raise UserError("tfidf counts the words of the tasks' own files: give it --tasks DIR, not --tier.")
    if request.engine == "ray":
        evaluate_on_ray(request, model, mine, console)
    records = judge(model, mine, console)
    benchmarks = ", ".join(dict.fromkeys(one.benchmark for one in chosen))
    part = f" (part {request.shard} of {len(chosen)} tasks)" if request.shard else ""
    _print(model, f"{benchmarks}{part} · mteb {suite.VERSION}", records, as_json)
    return all(record["score"] is not None for record in records)


def _print(model: Model, suffix: str, records: Sequence[ScoreRecord], as_json: bool) -> None:
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
