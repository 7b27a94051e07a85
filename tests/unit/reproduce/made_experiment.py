"""The folders of an experiment as its trainings leave them, with scores by rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unit.report.made_runs import export, make_run

from unsee_dist.evaluation.tasks import EvaluationRequest
from unsee_dist.reproduce.experiment import Experiment, from_each
from unsee_dist.reproduce.results import Results, collect
from unsee_dist.reproduce.units import Unit, units_of

NO_TASKS = EvaluationRequest("")
Score = Callable[[str, int, int], float]  # of arm, seed, step


def made(
    experiment: Experiment,
    out: Path,
    score: Score,
    seeds: int = 3,
    overrides: Sequence[str] = (),
    **more: Any,
) -> Results:
    """All runs of the small plan, 40 steps each, judged at 20 and 40. more: what every evaluation also has."""
    plan = experiment.plan(small=True)
    if experiment.starts:
        plan = from_each(plan, {"given": "", "other": "other"})
    given = ["evaluate.sts=pairs.tsv", "train.steps=40"]
    given = [text for text in given if text.partition("=")[0] not in experiment.small.varied]
    units = units_of(experiment, plan, [*given, *overrides], seeds, out)
    for unit in units:
        scores = {step: score(unit.arm, unit.seed, step) for step in (20, 40)}
        make_run(unit.folder, scores, **more)
        (unit.folder / "config.yaml").write_text(unit.config.as_yaml(), encoding="utf-8")
        export(unit.folder, "final", 40)
    return collect(experiment, plan, units, NO_TASKS, out)


def wave(seed: int) -> float:
    """A small number that differs by seed."""
    return 0.1 * math.sin(seed + 1)


def unit_names(units: Sequence[Unit]) -> list[str]:
    return [unit.name for unit in units]
