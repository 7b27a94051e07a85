"""The page of an experiment: its sentences, the table of scores, the figures, every run, what the arms are."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from unsee_dist.bench.sentence_trainer import PEERS
from unsee_dist.evaluation.intervals import half_width
from unsee_dist.metrics.names import EFFECTIVE_RANK, dev
from unsee_dist.metrics.verdict import collapse
from unsee_dist.report.facts import Next, Table
from unsee_dist.report.headline import Tile, Verdict
from unsee_dist.report.page import Commands, Grid, Page, PageBlock, PageSection, Plots, Words
from unsee_dist.report.run_files import is_run
from unsee_dist.reproduce.charts import charts
from unsee_dist.reproduce.experiment import BEFORE, Arm
from unsee_dist.reproduce.results import AT_END, Results, arms_of, best_step, digits, name_of
from unsee_dist.reproduce.sentences import headline, sentences


def page(results: Results, out: Path) -> Page:
    plots = charts(results)
    nothing: PageBlock = Words(["No run has been evaluated yet."])
    note = "Mean over the seeds ± half of its 95% interval, where there are at least two. Effective rank at the last evaluation."
    sections = [
        PageSection("Scores", [Grid(scores_table(results))], note),
        PageSection(
            "Figures",
            [Plots(plots) if plots else nothing],
            "Over the steps: thin lines are seeds, the thick one is their mean.",
        ),
        PageSection("Every run", [Grid(runs_table(results), "Each run's numbers")]),
        PageSection(
            "Arms",
            [Grid(arms_table(results), codes=True), Words([_shared(results)])],
            results.experiment.note,
        ),
        PageSection("Next", [Commands(_next(results))]),
    ]
    size = "small" if results.small else "full"
    verdict = Verdict(headline(results), "none", _tiles(results), _introduced(results))
    title = f"{results.experiment.name} ({size})"
    return Page(title, str(out.absolute()), verdict, sections, list(enumerate(arms_of(results))))


def scores_table(results: Results) -> Table:
    """A row an arm; above those that began with one encoder, that encoder."""
    head = [
        "arm",
        "seeds",
        *(name_of(score) for score in results.scores),
        "effective rank",
        "best/ of step",
    ]
    rows: list[list[str]] = []
    above: dict[str, float] = {}
    for arm in arms_of(results):
        began = _began(results, arm)
        if began and began != above:
            cells = [
                f"{began[score]:.{digits(score)}f}" if score in began else "–" for score in results.scores
            ]
            rank = f"{began[dev(EFFECTIVE_RANK)]:.1f}" if dev(EFFECTIVE_RANK) in began else "–"
            rows.append([BEFORE, "–", *cells, rank, "–"])
            above = began
        cells = [cell(results.values(arm, score), digits(score)) for score in results.scores]
        ranks_now = {
            each.unit.seed: each.last[dev(EFFECTIVE_RANK)]
            for each in results.of(arm)
            if dev(EFFECTIVE_RANK) in each.last
        }
        steps = ", ".join(str(best_step(each) or "–") for each in results.of(arm))
        rows.append([arm, str(len(results.of(arm))), *cells, cell(ranks_now, 1), steps])
    return Table(head, rows)


def _began(results: Results, arm: str) -> dict[str, float]:
    """Scores and effective rank of the encoder that all runs of an arm began with."""
    ranks = {each.before.get(dev(EFFECTIVE_RANK)) for each in results.of(arm)} - {None}
    found = {dev(EFFECTIVE_RANK): rank for rank in ranks if rank is not None and len(ranks) == 1}
    for score in results.scores:
        values = list(results.before(arm, score).values())
        if values and np.ptp(values) < 10.0 ** -digits(score):
            found[score] = round(values[0], digits(score))
    return found


def cell(values: Mapping[int, float], places: int) -> str:
    """ "71.20 ± 0.31", "71.20" of one seed, a dash of none."""
    numbers = list(values.values())
    if not numbers:
        return "–"
    mean = f"{np.mean(numbers):.{places}f}"
    return mean if len(numbers) == 1 else f"{mean} ± {half_width(numbers):.{places}f}"


def runs_table(results: Results) -> Table:
    scores = results.scores
    head = ["run", "steps", *(name_of(score) for score in scores), "collapse", "sentences/s"]
    rows = []
    for each in results.units:
        values = [results.values(each.unit.arm, score).get(each.unit.seed) for score in scores]
        cells = [
            "–" if value is None else f"{value:.{digits(score)}f}"
            for value, score in zip(values, scores, strict=True)
        ]
        rows.append(
            [
                each.unit.name,
                str(each.steps),
                *cells,
                collapse(each.last) or "–",
                _speed(each.sentences_per_s),
            ]
        )
    return Table(head, rows)


def arms_table(results: Results) -> Table:
    head = ["arm", "preset or loss", "its settings"]
    rows = [[arm.name, _trained_by(arm), " ".join(arm.settings) or "–"] for arm in results.plan.arms]
    return Table(head, rows)


def _trained_by(arm: Arm) -> str:
    return f"sentence-transformers {PEERS[arm.trainer].loss}" if arm.trainer else arm.preset or "–"


def _shared(results: Results) -> str:
    """The settings that all arms were given."""
    first, *others = [set(each.unit.overrides) for each in results.units]
    same = first.intersection(*others)
    return f"All arms: {' '.join(text for text in results.units[0].unit.overrides if text in same)}"


def _speed(sentences_per_s: float) -> str:
    return f"{sentences_per_s:.0f}" if math.isfinite(sentences_per_s) else "–"


def _introduced(results: Results) -> list[str]:
    return [results.experiment.question, *sentences(results)]


def _tiles(results: Results) -> list[Tile]:
    tiles = [
        Tile("Runs", str(len(results.units)), f"{len(arms_of(results))} arms, {results.seeds} seeds"),
        Tile("Steps", _range({each.steps for each in results.units}), "of a run"),
    ]
    before = _common_before(results)
    return tiles + [
        Tile(BEFORE.capitalize(), f"{before[score]:.{digits(score)}f}", score)
        for score in results.scores
        if score in before and not score.endswith(AT_END)
    ]


def _range(values: set[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _common_before(results: Results) -> dict[str, float]:
    """The scores of the encoder before training, where all runs have the same ones."""
    common = {}
    for score in results.scores:
        values = [value for arm in arms_of(results) for value in results.before(arm, score).values()]
        if values and np.ptp(values) < 10.0 ** -digits(score):
            common[score] = values[0]
    return common


def _next(results: Results) -> list[Next]:
    first = results.units[0].unit
    if not is_run(first.folder):
        return []
    best = f"unsee report {shlex.quote(str(first.folder))}"
    every = " ".join(shlex.quote(str(each.unit.folder)) for each in results.units if each.unit.seed == 0)
    return [
        Next(best, "the page of one run, with its encoder's nearest neighbours"),
        Next(f"unsee report {every}", "the runs of seed 0 side by side"),
    ]
