"""`unsee compare`: what `unsee evaluate` kept, side by side. Runs that differ only in their seed are one row."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Column, Table

from unsee_dist.errors import UserError, writing
from unsee_dist.evaluation import comparison
from unsee_dist.evaluation.comparison import Row
from unsee_dist.evaluation.models import Model, open_model
from unsee_dist.evaluation.scores import ScoreRecord, kept

# Of a configuration, what may differ between the seeds of one row.
OF_A_SEED = ("seed", "run", "resume")


def compare(given: Sequence[str], out: Path | None, as_json: bool) -> None:
    """Print models side by side; with `out`, write OUT.md, OUT.json and OUT.png. ValueError: one without scores."""
    if len(given) < 2:
        raise UserError("One model has nothing to be compared with. Give two or more: unsee compare A B.")
    rows = rows_of(given)
    found = comparison.as_dict(rows)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        _print(rows, found["sentences"])
    if out is not None:
        from unsee_dist.evaluation.comparison_plot import plot

        with writing(f"--out {out}"):
            out.parent.mkdir(parents=True, exist_ok=True)
            Path(f"{out}.md").write_text(comparison.markdown(rows), encoding="utf-8")
            Path(f"{out}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            plot(rows, Path(f"{out}.png"))


def rows_of(given: Sequence[str]) -> list[Row]:
    """Rows in the order of their first model."""
    groups: dict[str, list[tuple[Model, dict[str, ScoreRecord]]]] = {}
    for one in given:
        model = open_model(one)
        records = kept(model.home)
        if not records:
            raise UserError(
                f"{one} has no scores yet. First: unsee evaluate {one} --tasks DIR (or --tier NAME)."
            )
        members = groups.setdefault(_key(model), [])
        if any(model.home == other.home for other, _ in members):
            raise UserError(f"{one} is given twice. Leave one out.")
        members.append((model, records))
    names = [_name([model for model, _ in members]) for members in groups.values()]
    homes = [str(members[0][0].run or members[0][0].home) for members in groups.values()]
    own = [
        name if names.count(name) == 1 else f"{name} of {home}"
        for name, home in zip(names, homes, strict=True)
    ]
    seeds = [tuple(records for _, records in members) for members in groups.values()]
    return [Row(name, each) for name, each in zip(own, seeds, strict=True)]


def _key(model: Model) -> str:
    """What the seeds of one row share: every other setting, and which export of the run it is."""
    if model.run is None or not (model.run / "config.yaml").is_file():
        return str(model.home)
    settings = yaml.safe_load((model.run / "config.yaml").read_text(encoding="utf-8"))
    same = {name: value for name, value in settings.items() if name not in OF_A_SEED}
    return json.dumps([same, model.name.rpartition("/")[2]], sort_keys=True)


def _name(models: Sequence[Model]) -> str:
    first = models[0].name.removeprefix("local/").removeprefix("floor/")
    run, _, which = first.partition("/")
    return f"{re.sub('[-_.]?(seed)?[0-9]+$', '', run)}/{which}" if len(models) > 1 else first


def _print(rows: Sequence[Row], sentences: Sequence[str]) -> None:
    head, *lines = comparison.grid(rows)
    table = Table(
        Column(head[0], overflow="fold"), title=comparison.judged_on(rows), title_justify="left", box=None
    )
    for name in head[1:]:
        table.add_column(name, justify="right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    console = Console()
    console.print(table)
    for said in sentences:
        console.print(said)
