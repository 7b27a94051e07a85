"""Which numbers of metrics.jsonl become a plot, for one run or several: only what their files have.

A colour is a run. In every plot of an evaluation a level is the encoder before training, and one is TF-IDF where it has a
score; a dot is the evaluation that became best/.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from unsee_dist.metrics.names import (
    ALIGNMENT,
    CORRELATION,
    DAMAGED,
    DECAY,
    DISTANCE,
    EFFECTIVE_RANK,
    EVALUATION,
    GRAD_NORM,
    LOSS,
    LR,
    MEAN_COSINE,
    MRR,
    PASSED_OVER,
    RECALL_AT_1,
    SENTENCES_PER_S,
    SKIPPED,
    SPECTRUM,
    STD,
    STD_MIN,
    STEP,
    STS,
    TOKENS_PER_S,
    TRAINING,
    UNIFORMITY,
    WAIT,
    dev,
)
from unsee_dist.report.plots import Dot, HorizontalLine, Panel, Plot, Series, draw
from unsee_dist.report.run_files import RunFiles
from unsee_dist.tracking.metrics_file import Line

SCORES = (dev(STS), dev(MRR), dev(RECALL_AT_1))
GEOMETRY = (
    *(dev(EFFECTIVE_RANK), dev(STD), dev(STD_MIN), dev(CORRELATION), dev(MEAN_COSINE)),
    *(dev(ALIGNMENT), dev(UNIFORMITY)),
)
SPEED = (SENTENCES_PER_S, TOKENS_PER_S, WAIT)
SCHEDULE = (LR, DECAY, GRAD_NORM)
FAULTS = (SKIPPED, PASSED_OVER, DAMAGED)  # shown where one is above 0
TITLES = {
    dev(STS): "STS",
    dev(MRR): "MRR",
    dev(RECALL_AT_1): "Recall at 1",
    dev(EFFECTIVE_RANK): "Effective rank",
    dev(STD): "Spread (std)",
    dev(STD_MIN): "Smallest spread",
    dev(CORRELATION): "Correlation of dimensions",
    dev(MEAN_COSINE): "Mean cosine",
    dev(ALIGNMENT): "Alignment",
    dev(UNIFORMITY): "Uniformity",
    LOSS: "Loss",
    LR: "Learning rate",
    DECAY: "Target decay",
    GRAD_NORM: "Gradient norm",
    DISTANCE: "Online to target",
    SENTENCES_PER_S: "Sentences a second",
    TOKENS_PER_S: "Tokens a second",
    WAIT: "Waiting for data",
    SKIPPED: "Skipped steps",
    PASSED_OVER: "Steps passed over",
    DAMAGED: "Damaged sentences",
}


class Group(NamedTuple):
    """Plots under one heading. empty: the sentence where there is none."""

    title: str
    plots: list[Plot]
    empty: str


def groups(runs: Sequence[RunFiles], baseline: Mapping[str, float]) -> list[Group]:
    """baseline: of TF-IDF, where all runs are evaluated on the same sets."""
    several = sorted({key for run in runs for line in run.evaluations for key in line if _is_of_set(key)})
    terms = dict.fromkeys(key for run in runs for line in run.training for key in line if key not in TRAINING)
    no_scores = (
        "No scores: neither evaluate.sts nor evaluate.retrieval was set, or nothing was evaluated yet."
    )
    return [
        Group("Scores", _of_evaluations(runs, (*SCORES, *several), baseline), no_scores),
        Group("Loss", _of_training(runs, (LOSS, *terms)), "No step has been written yet."),
        Group(
            "Embeddings",
            [*_of_evaluations(runs, GEOMETRY, {}), *_drawn([_spectrum(runs)])],
            "Nothing was evaluated yet.",
        ),
        Group(
            "Target and schedule",
            [*_drawn([_distance(runs)]), *_of_training(runs, SCHEDULE)],
            "No step has been written yet.",
        ),
        Group("Speed", _of_training(runs, (*SPEED, *_faults(runs))), "No step has been written yet."),
    ]


def _before(runs: Sequence[RunFiles], key: str) -> list[HorizontalLine]:
    """The scores before training, equal ones once: several runs begin with one encoder."""
    levels: list[HorizontalLine] = []
    for run in runs:
        value = run.before.get(key, math.nan)
        if math.isfinite(value) and not any(math.isclose(value, other, rel_tol=1e-4) for _, other in levels):
            levels.append(HorizontalLine(f"before ({run.name})", value))
    return [HorizontalLine("before", levels[0].value)] if len(levels) == 1 else levels


def _of_evaluations(
    runs: Sequence[RunFiles], keys: Sequence[str], baseline: Mapping[str, float]
) -> list[Plot]:
    def panel(key: str) -> Panel:
        baselines = [HorizontalLine("TF-IDF", baseline[key])] if key in baseline else []
        dots = [
            Dot(line[STEP], line[key], place)
            for place, run in enumerate(runs)
            for line in [run.best]
            if math.isfinite(line.get(key, math.nan))
        ]
        series = _series(runs, key, lambda run: run.evaluations)
        title, unit = TITLES.get(key, key.removeprefix("dev/")), EVALUATION.get(key, key)
        return Panel(title, unit, series, _before(runs, key), baselines, dots)

    return _drawn(panel(key) for key in keys)


def _of_training(runs: Sequence[RunFiles], keys: Sequence[str]) -> list[Plot]:
    return _drawn(
        Panel(
            TITLES.get(key, f"Term: {key}"),
            TRAINING.get(key, "weighted term of the loss"),
            _series(runs, key, lambda run: run.training),
        )
        for key in keys
    )


def _distance(runs: Sequence[RunFiles]) -> Panel:
    """Of training and evaluation lines together: each has it now and then."""

    def lines(run: RunFiles) -> list[Line]:
        both = chain(run.training, (line | {DISTANCE: line.get(dev(DISTANCE))} for line in run.evaluations))
        by_step = {line[STEP]: line for line in both if line.get(DISTANCE) is not None}
        return [by_step[step] for step in sorted(by_step)]

    return Panel(TITLES[DISTANCE], TRAINING[DISTANCE], _series(runs, DISTANCE, lines))


def _spectrum(runs: Sequence[RunFiles]) -> Panel:
    """Shares of eigenvalues by their rank, before training (dashed) and at the best or the last evaluation."""
    series = []
    for place, run in enumerate(runs):
        for when, line in (("before", run.before), ("after", run.best or run.last)):
            shares = {
                int(key.rpartition("/")[2]): value
                for key, value in line.items()
                if key.startswith(f"{dev(SPECTRUM)}/")
            }
            ranks = sorted(shares)
            values = [shares[rank] if shares[rank] > 0 else math.nan for rank in ranks]
            if ranks:
                series.append(
                    Series(
                        f"{run.name} {when}",
                        ranks,
                        values,
                        place,
                        weight="weak" if when == "before" else "normal",
                    )
                )
    unit = "share of the k-th largest eigenvalue; dashed: before training"
    return Panel("Spectrum", unit, series, x_label="k", log_x=True, log_y=True)


def _faults(runs: Sequence[RunFiles]) -> list[str]:
    return [key for key in FAULTS if any(line.get(key) for run in runs for line in run.training)]


def _is_of_set(key: str) -> bool:
    """dev/sts/NAME and its like, of several sets."""
    return any(key.startswith(f"{score}/") for score in SCORES)


def _series(runs: Sequence[RunFiles], key: str, lines: Callable[[RunFiles], Sequence[Line]]) -> list[Series]:
    series = []
    for place, run in enumerate(runs):
        points = [(line[STEP], line[key]) for line in lines(run) if key in line]
        if points:
            x, y = zip(*points, strict=True)
            series.append(Series(run.name, x, y, place))
    return series


def _drawn(panels: Iterable[Panel]) -> list[Plot]:
    return [plot for panel in panels if (plot := draw(panel)) is not None]
