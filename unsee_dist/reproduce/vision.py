"""`unsee reproduce vision`: the objectives and the target on images, by docs/examples/vision.py, which is installed with the package.

The example uses the package from outside, and its runs are no runs of `unsee train`: no text, corpus or encoder of the
user's. So it is run as it is, in a process of its own, and what it leaves in OUT/runs is read as other experiments'
runs are: the same claims, intervals, sentences, page and results.json.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from unsee_dist.config.sections import GuardSettings
from unsee_dist.config.shipped import EXAMPLES, shipped, shipped_file
from unsee_dist.errors import ExitCode, UserError, ended
from unsee_dist.evaluation.tasks import EvaluationRequest
from unsee_dist.files.trees import read_within
from unsee_dist.metrics.names import EFFECTIVE_RANK, STEP, dev
from unsee_dist.metrics.task_score import ModelIdentity, TaskScore
from unsee_dist.reproduce.experiment import Arm, Chart, Claim, Experiment, Plan
from unsee_dist.reproduce.results import Results, UnitResult
from unsee_dist.reproduce.runner import run_logged
from unsee_dist.reproduce.units import LOGS, RUNS, Unit
from unsee_dist.supervision.signals import Stopped, StopSignal
from unsee_dist.tracking.metrics_file import Line
from unsee_dist.training.guard import with_verdict

NAME = "vision"
VIEWS = ("dropout", "shifts")
OBJECTIVES = ("barlowtwins", "vicreg", "corinfomax", "byol", "simcse")
SMALL, FULL = 200, 2000  # steps
MOST_BYTES = 1 << 20  # of a run's file: some kB
ACCURACIES = ("digits: 5 nearest", "digits: probe of 8 labels")


def experiment() -> Experiment:
    pairs = [(f"{views}-{name}-ema", f"{views}-{name}-online") for views in VIEWS for name in OBJECTIVES]
    arms = tuple(Arm(name, "") for pair in pairs for name in pair)
    claims = tuple(Claim(*pair) for pair in pairs)
    return Experiment(
        NAME,
        "Does the EMA target help outside text, on images of digits? (open question 1)",
        Plan(arms, claims, (f"steps={SMALL}",), seeds=5),
        Plan(arms, claims, (f"steps={FULL}",), seeds=10),
        (Chart("arms"), Chart("steps", dev(EFFECTIVE_RANK))),
        "docs/examples/vision.py: a perceptron on scikit-learn's digits, random at the start, views by dropout alone or by shifts of a "
        "pixel under dropout; ema: with the target, online: without it, gradient through both views. Accuracies x 100 of "
        "digits that did not train, at the last step: nothing is chosen by them.",
    )


class _Run(BaseModel):
    """A file of OUT/runs, as the example writes it."""

    steps: Annotated[int, Field(strict=True)]
    evaluations: Annotated[list[dict[str, float]], Field(min_length=1)]


@dataclass(frozen=True)
class VisionRequest:
    """What the command was given, as far as this experiment has a use for it."""

    out: Path
    small: bool
    seeds: int | None


def check_request(overrides: Sequence[str], tasks: EvaluationRequest) -> None:
    """UserError: settings, tasks or an engine, which runs of text have."""
    flags = [("--tasks", tasks.folders), ("--tier", tasks.tiers), ("--engine", tasks.engine)]
    given = [*overrides, *(f"{name} {value}" for name, value in flags if value)]
    if given:
        raise UserError(
            f"{given[0]} is not used by vision, which trains on digits in some minutes, on this machine, by settings of its own "
            f"({shipped(EXAMPLES) / 'vision.py'}). Leave it out."
        )


def run(request: VisionRequest, stop: StopSignal) -> Results:
    """All runs, or those that are not there yet. Raises Stopped: the same command continues."""
    seeds = request.seeds or experiment().plan(request.small).seeds
    steps = SMALL if request.small else FULL
    for path in sorted((request.out / RUNS).glob("*.json")):  # the example reads what is there
        _loaded(path)
    log = request.out / LOGS / f"{NAME}.log"
    command = [str(shipped_file(EXAMPLES, "vision.py")), "--out", str(request.out)]
    command += ["--seeds", str(seeds), "--steps", str(steps)]
    code = run_logged([sys.executable, *command], log, stop)
    if stop.requested:
        raise Stopped
    if code != ExitCode.COMPLETE:
        raise ended(f"vision ended with exit code {code}. Its output: {log}", code)
    return collect(request.out, request.small, seeds)


def collect(out: Path, small: bool, seeds: int) -> Results:
    """What the runs in the folder have measured."""
    whole = experiment()
    plan = whole.plan(small)
    units = [_read(out, arm.name, seed) for seed in range(seeds) for arm in plan.arms]
    return Results(whole, plan, seeds, units)


def _read(out: Path, arm: str, seed: int) -> UnitResult:
    path = out / RUNS / f"{arm}-{seed}.json"
    made = _loaded(path)
    lines = [_line(each) for each in made.evaluations]
    unit = Unit(arm, seed, "", (f"steps={made.steps}",), path.with_suffix(""), out / LOGS / f"{NAME}.log")
    settings = {"steps": made.steps}
    first, last = made.evaluations[0], made.evaluations[-1]
    return UnitResult(
        unit,
        settings,
        "",
        made.steps,
        lines[0],
        {},
        lines[-1],
        lines,
        math.nan,
        _tasks(last),
        _tasks(first),
    )


def _loaded(path: Path) -> _Run:
    """A run of the example. UserError: its file is damaged."""
    remedy = "Remove it: the same command runs that arm again."
    try:
        made = _Run.model_validate_json(read_within(path, MOST_BYTES, remedy))
    except ValidationError as error:
        raise UserError(f"{path} is damaged, or is not a run of vision. {remedy}") from error
    if not all({STEP, *ACCURACIES} <= scores.keys() for scores in made.evaluations):
        raise UserError(f"{path} is damaged, or is not a run of vision. {remedy}")
    return made


def _line(scores: Mapping[str, float]) -> Line:
    """As in metrics.jsonl, with the verdict on the embeddings that every run has."""
    geometry = {dev(name): value for name, value in scores.items() if name not in ACCURACIES and name != STEP}
    return with_verdict(GuardSettings(), {STEP: scores[STEP]} | geometry)


def _tasks(scores: Mapping[str, float]) -> dict[str, TaskScore]:
    model = ModelIdentity("perceptron", "")
    return {
        name: TaskScore(name, "vision", "local", "accuracy", "scikit-learn", "", model, scores[name], 0.0)
        for name in ACCURACIES
    }
