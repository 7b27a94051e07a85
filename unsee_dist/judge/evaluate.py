"""`unsee evaluate`: a model, tasks, a table. What was judged before is read, not judged again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from unsee_dist.evaluation.local_tasks import local_tasks
from unsee_dist.evaluation.scores import Record, keep, kept, same_question
from unsee_dist.evaluation.tfidf import TfIdf
from unsee_dist.judge.models import Model, open_model
from unsee_dist.report import score_table


def evaluate(
    given: str, tiers: Sequence[str], folders: Sequence[Path], shard: str | None, as_json: bool
) -> bool:
    """Judge MODEL on tiers, tasks and folders, print the table. False when it is unusable on some task.

    shard: "k/n" = the k-th of n parts of the tasks; the same call without it prints all parts together.
    """
    from unsee_dist.evaluation import mteb_suite as suite  # seconds to import: not for those who read records

    chosen = choose(tiers, folders)
    mine = _part(chosen, shard) if shard else chosen
    model = open_model(given)
    if isinstance(model.embed, TfIdf) and any(one.texts is None for one in chosen):
        raise ValueError("tfidf counts the words of the tasks' own files: give it --tasks DIR, not --tier.")
    records = judge(model, mine, Console(stderr=True))
    benchmarks = ", ".join(dict.fromkeys(one.benchmark for one in chosen))
    part = f" (part {shard} of {len(chosen)} tasks)" if shard else ""
    title = f"{model.name} {model.revision} · {benchmarks}{part} · mteb {suite.VERSION}"
    identity = {"name": model.name, "revision": model.revision}
    said = score_table.verdicts(records)
    if as_json:
        print(json.dumps(score_table.summary(title, identity, records) | {"verdicts": said}, indent=1))
    else:
        console = Console()
        console.print(score_table.table(title, records))
        for sentence in said:
            console.print(sentence)
        console.print(f"Scores: {model.home}")
    return all(record["score"] is not None for record in records)


def choose(tiers: Sequence[str], folders: Sequence[Path]) -> list:
    """The tasks asked for, each name once. ValueError when none is, or two tasks share a name."""
    from unsee_dist.evaluation import mteb_suite as suite

    if not tiers and not folders:
        raise ValueError(
            f"Say what to judge on: --tier {' | '.join(suite.TIERS)} | TASK of mteb, or --tasks DIR."
        )
    chosen = suite.published(tiers) if tiers else []
    for folder in folders:
        chosen += [suite.local(task) for task in local_tasks(folder)]
    names = [one.name for one in chosen]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"Two tasks are called {twice[0]}. Rename one: its name is its file's, or in tasks.yaml."
        )
    return chosen


def judge(model: Model, chosen: Sequence, console: Console) -> list[Record]:
    """The records of the tasks, in order: those kept from before, the others made and kept now."""
    from unsee_dist.evaluation import mteb_suite as suite

    before, records = kept(model.home), []
    encoder = suite.Encoder(model.embed, model.name, model.revision)
    for place, one in enumerate(chosen, start=1):
        record = before.get(one.name)
        if not same_question(record, one.data, suite.VERSION, model.revision):
            console.print(f"{place}/{len(chosen)} {one.name}", style="dim")
            if isinstance(model.embed, TfIdf):
                model.embed.prepare(one.texts)
            record = suite.score(one, encoder, model.home / "mteb")
            record["model"] = {"name": model.name, "revision": model.revision}
            keep(model.home, record)
        assert record is not None
        records.append(record)
    return records


def prefetch(given: str, tiers: Sequence[str]) -> None:
    """Bring the data of published tasks, and a Hub model, into this machine's cache: on a node with internet."""
    from unsee_dist.evaluation import mteb_suite as suite

    console = Console(stderr=True)
    for place, one in enumerate(chosen := suite.published(tiers), start=1):
        console.print(f"{place}/{len(chosen)} {one.name}", style="dim")
        suite.prefetch(one)
    model = open_model(given)
    console.print(f"{len(chosen)} tasks and {model.name} are on this machine. Offline: HF_HUB_OFFLINE=1.")


def _part(chosen: Sequence, shard: str) -> Sequence:
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"--shard {shard} is no part. Write k/n with k from 1 to n, such as 1/8.")
    return chosen[int(found[1]) - 1 :: int(found[2])]
