"""`unsee compare`: the scores of `unsee evaluate`, side by side. Runs that differ only in their seed are one row."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from unsee_dist.config import CONFIG, recorded
from unsee_dist.errors import UserError, writing
from unsee_dist.evaluation import comparison
from unsee_dist.evaluation.comparison import ComparisonRow
from unsee_dist.evaluation.models import EvaluationModel, open_model
from unsee_dist.evaluation.scores import read_scores
from unsee_dist.files.atomic import write_file
from unsee_dist.files.folders import make_folder, remove_empty
from unsee_dist.files.remote import check_local
from unsee_dist.files.room import try_file
from unsee_dist.files.trees import parse_json
from unsee_dist.metrics.task_score import TaskScore

# The sections of a configuration that may differ between the seeds of one row.
OF_A_SEED = ("seed", "run", "resume")


def compare(names: Sequence[str], out: Path | None, as_json: bool) -> None:
    """Print models side by side; with `out`, write OUT.md, OUT.json and OUT.png. UserError: one has no scores, or none of
    a task of the first one's."""
    if len(names) < 2:
        raise UserError("One model cannot be compared. Write two or more: unsee compare A B.")
    if out is not None:
        check_local(out, "--out")
        _check_output(out)
    rows = rows_of(names)
    comparison.check_common(rows)
    tree = comparison.as_dict(rows)
    text = json.dumps(tree, indent=1)
    if as_json:
        print(text)
    else:
        _print(rows, tree["sentences"])
    if out is not None:
        from unsee_dist.evaluation.comparison_plot import plot

        with writing(f"--out {out}"):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_file(Path(f"{out}.md"), comparison.markdown(rows))
            write_file(Path(f"{out}.json"), text + "\n")
            plot(rows, Path(f"{out}.png"))


def _check_output(out: Path) -> None:
    """UserError: the files to write are there, and no comparison has written them; or they cannot be written."""
    places = [Path(f"{out}.{ending}") for ending in ("json", "md", "png")]
    there = [path for path in places if path.exists()]
    try:
        tree = parse_json(places[0].read_bytes())
    except (OSError, ValueError):
        tree = None
    if there and not (isinstance(tree, dict) and "sentences" in tree):
        raise UserError(f"--out {out}: {there[0]} is not a comparison. Write another name, or move it away.")
    with writing(f"--out {out}"):
        new = make_folder(out.parent)
        try:
            for path in places:
                try_file(path)
        finally:
            remove_empty(new)


def rows_of(names: Sequence[str]) -> list[ComparisonRow]:
    """Rows in the order of their first model."""
    groups: dict[str, list[tuple[EvaluationModel, dict[str, TaskScore]]]] = {}
    for name in names:
        model = open_model(name)
        scores = read_scores(model.home)
        if not scores:
            raise UserError(
                f"{name} has no scores yet. First: unsee evaluate {name} --tasks DIR (or --tier NAME)."
            )
        members = groups.setdefault(_key(model), [])
        if any(model.home == other.home for other, _ in members):
            raise UserError(f"{name} is given twice. Leave one out.")
        members.append((model, scores))
    short = [_name([model for model, _ in members]) for members in groups.values()]
    homes = [str(members[0][0].run or members[0][0].home) for members in groups.values()]
    unique = [
        name if short.count(name) == 1 else f"{name} of {home}"
        for name, home in zip(short, homes, strict=True)
    ]
    seeds = [tuple(scores for _, scores in members) for members in groups.values()]
    return [ComparisonRow(name, scores) for name, scores in zip(unique, seeds, strict=True)]


def _key(model: EvaluationModel) -> str:
    """Equal for the seeds of one row: every other setting, and which export of the run it is."""
    if model.run is None or not (model.run / CONFIG).is_file():
        return str(model.home)
    settings = recorded(model.run).model_dump(mode="json")
    same = {name: value for name, value in settings.items() if name not in OF_A_SEED}
    return json.dumps([same, model.name.rpartition("/")[2]], sort_keys=True)


def _name(models: Sequence[EvaluationModel]) -> str:
    first = models[0].name.removeprefix("local/").removeprefix("baseline/")
    run, _, export = first.partition("/")
    return f"{re.sub('[-_.]?(seed)?[0-9]+$', '', run)}/{export}" if len(models) > 1 else first


def _print(rows: Sequence[ComparisonRow], sentences: Sequence[str]) -> None:
    head, *lines = comparison.grid(rows)
    table = Table(
        Column(head[0], overflow="fold"), title=comparison.benchmarks(rows), title_justify="left", box=None
    )
    for name in head[1:]:
        table.add_column(name, justify="right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    console = Console(markup=False, emoji=False)
    console.print(table)
    for sentence in sentences:
        console.print(sentence)
