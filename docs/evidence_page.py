"""The page of evidence: what `unsee reproduce` has measured, out of each results.json that is kept in docs/results/reproduce.

    docs/results/reproduce/NAME.json     a results.json as the command wrote it, under the name of its experiment
    NAME-MORE.json                       the same experiment elsewhere: another encoder, a GPU

Files are in the order of experiments in the package, then of their names. Nothing is computed here but means and intervals
of the seeds, by the code that makes the experiment's own page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wording import table, text

FOLDER = Path(__file__).resolve().parent / "results" / "reproduce"
ASKED = (
    "model.encoder",
    "data.shards",
    "train.steps",
    "train.batch",
)  # in the sentence, where all runs share them


def evidence(folder: Path = FOLDER) -> str:
    return "\n\n".join(experiment(path.stem, _read(path)) for path in files(folder))


def files(folder: Path) -> list[Path]:
    from unsee_dist.reproduce.experiments import EXPERIMENTS

    order = list(EXPERIMENTS)
    return sorted(folder.glob("*.json"), key=lambda path: (order.index(_experiment(path)), path.stem))


def _experiment(path: Path) -> str:
    return path.stem.partition("-")[0]


def _read(path: Path) -> dict[str, Any]:
    """ValueError: the file is another experiment's, or of another format than the package writes."""
    from unsee_dist.reproduce.record import FORMAT

    tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if (tree["format"], tree["experiment"]) != (FORMAT, _experiment(path)):
        raise ValueError(f"{path}: format {tree['format']} of the experiment {tree['experiment']}")
    return tree


def experiment(name: str, of: Mapping[str, Any]) -> str:
    """A section: the question, what was run, what it says, the scores."""
    from unsee_dist.reproduce.results import name_of

    scores = [name_of(score) for score in of["scores"]]
    parts = [
        f"## {name}",
        text(of["question"]),
        text(measured(of)),
        f"**{text(of['headline'])}.**",
        "\n".join(f"- {text(sentence)}" for sentence in of["sentences"]),
        table(["arm", "seeds", *scores], scores_rows(of)),
        f"The numbers of every seed and evaluation: [{name}.json](reproduce/{name}.json).",
    ]
    return "\n\n".join(part for part in parts if part)


def scores_rows(of: Mapping[str, Any]) -> list[list[str]]:
    """The arms, mean ± half of the 95% interval over seeds; above those that began with one encoder, that encoder."""
    from unsee_dist.reproduce.experiment import BEFORE
    from unsee_dist.reproduce.page import cell
    from unsee_dist.reproduce.results import digits

    rows: list[list[str]] = []
    above: dict[str, list[float]] = {}
    for name, arm in of["arms"].items():
        before = {score: sorted(set(values))[:1] for score, values in arm["before"].items()}
        if before != above:
            cells = [cell(dict(enumerate(before[score])), digits(score)) for score in of["scores"]]
            rows.append([BEFORE, "–", *cells])
            above = before
        cells = [cell(dict(enumerate(arm["scores"][score])), digits(score)) for score in of["scores"]]
        rows.append([f"`{name}`", _seeds(arm), *cells])
    return rows


def _seeds(arm: Mapping[str, Any]) -> str:
    return str(max(map(len, arm["scores"].values()), default=0))


def measured(of: Mapping[str, Any]) -> str:
    """ "`unsee reproduce start --small`, 5 arms, 3 seeds; model.encoder wiki-bert-mini, ..." """
    size = " --small" if of["small"] else ""
    settings = [run["settings"] for run in of["runs"]]
    shared = [
        f"{key} {settings[0][key]}"
        for key in ASKED
        if key in settings[0] and all(each.get(key) == settings[0][key] for each in settings)
    ]
    versions = ", ".join(f"{name} {version}" for name, version in of["versions"].items())
    said = f"`unsee reproduce {of['experiment']}{size}`, {len(of['arms'])} arms, {of['seeds']} seeds"
    return f"{'; '.join([said, ', '.join(shared)]) if shared else said} ({versions})."
