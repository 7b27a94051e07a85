"""`unsee reproduce`: train or continue all runs of an experiment, score them, write its page and results.json.

OUT/report.html       sentences, table, figures
    results.json      the same for programs, and for the docs
    runs/ARM-SEED/    a run like any other
    logs/             what each training printed
    untrained/        the encoder that the runs begin with, and its scores
    random/           of `start`: the same architecture with random weights
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unsee_dist.bench.sentence_trainer import check_installed
from unsee_dist.config.spelling import closest
from unsee_dist.data.prepare.stages import DEV as HELD_OUT
from unsee_dist.data.processes import RAY
from unsee_dist.errors import ExitCode, UserError
from unsee_dist.evaluation.on_ray import check_engine
from unsee_dist.evaluation.tasks import EvaluationRequest, select_tasks
from unsee_dist.files.owner import OWNER, owned
from unsee_dist.files.remote import check_local
from unsee_dist.log import LOG, progress_console
from unsee_dist.report.page import NAME, check_target, write_page
from unsee_dist.reproduce import vision
from unsee_dist.reproduce.experiment import Experiment, from_each, key, only
from unsee_dist.reproduce.experiments import EXPERIMENTS
from unsee_dist.reproduce.page import page
from unsee_dist.reproduce.record import check_results, write_results
from unsee_dist.reproduce.results import Results, collect
from unsee_dist.reproduce.runner import run_here, run_on_ray
from unsee_dist.reproduce.sentences import headline, sentences
from unsee_dist.reproduce.starts import RANDOM, all_starts, write_random
from unsee_dist.reproduce.units import Unit, units_of
from unsee_dist.supervision.signals import Stopped, StopSignal

RESULTS = "results.json"


@dataclass(frozen=True)
class Request:
    """The arguments of the command. seeds: None = the experiment's own."""

    name: str
    overrides: Sequence[str]
    out: Path
    small: bool = False
    seeds: int | None = None
    arms: Sequence[str] = ()  # none: all
    starts: Mapping[str, str] = field(default_factory=dict)  # other encoders to begin with, folders by name
    tasks: EvaluationRequest = field(default_factory=lambda: EvaluationRequest(""))


def reproduce(request: Request) -> ExitCode:
    """COMPLETE, or STOPPED after a signal: the same command continues. UserError: a mistake of the user."""
    experiment = find(request.name)
    plan = experiment.plan(request.small)
    check_local(request.out, "--out")
    if request.name == vision.NAME:
        return _vision(request)
    check_engine(request.tasks.engine)
    if any(arm.trainer for arm in plan.arms):
        check_installed(experiment.name)
    if request.tasks.tiers or request.tasks.folders:
        select_tasks(
            request.tasks.tiers, request.tasks.folders
        )  # a missing file is found before hours of training
    overrides = with_evaluation(request)
    if experiment.starts:
        plan = from_each(plan, all_starts(request.starts, request.out))
    elif request.starts:
        raise UserError(
            f"--start is of {starts_of()}, and {experiment.name} begins with model.encoder alone. Leave it out."
        )
    whole, plan = plan, only(plan, request.arms) if request.arms else plan
    of_all = units_of(experiment, whole, overrides, request.seeds or whole.seeds, request.out)
    units = [unit for unit in of_all if unit.arm in {arm.name for arm in plan.arms}]
    with owned(request.out / OWNER, f"--out {request.out}", "Stop it, or write another --out."):
        _check_output(request.out)
        if any(arm.start == RANDOM for arm in plan.arms):
            given = {arm.name for arm in whole.arms if not arm.encoder}
            encoder = next(unit.config.model.encoder for unit in of_all if unit.arm in given)
            write_random(request.out / RANDOM, encoder)
        try:
            run_all(units, request.tasks)
        except Stopped:
            LOG.info("stopped; the same command continues")
            return ExitCode.STOPPED
        results = collect(experiment, plan, units, request.tasks, request.out)
        write(results, request.out)
    return ExitCode.COMPLETE


def starts_of() -> str:
    return " and ".join(name for name, each in EXPERIMENTS.items() if each.starts)


def _vision(request: Request) -> ExitCode:
    flags = [f"--start {name}" for name in request.starts] + [f"--arm {name}" for name in request.arms]
    vision.check_request([*request.overrides, *flags], request.tasks)
    with owned(request.out / OWNER, f"--out {request.out}", "Stop it, or write another --out."):
        _check_output(request.out)
        stop = StopSignal()
        try:
            results = vision.run(vision.VisionRequest(request.out, request.small, request.seeds), stop)
        except Stopped:
            LOG.info("stopped; the same command continues")
            return ExitCode.STOPPED
        finally:
            stop.close()
        write(results, request.out)
    return ExitCode.COMPLETE


def find(name: str) -> Experiment:
    if name not in EXPERIMENTS:
        near = closest(name, EXPERIMENTS)
        meant = f"did you mean {near}? " if near else ""
        raise UserError(
            f"NAME = {name} is not an experiment. {meant}They are {', '.join(EXPERIMENTS)}.".replace(
                ". d", ": d"
            )
        )
    return EXPERIMENTS[name]


def with_evaluation(request: Request) -> list[str]:
    """The overrides with something that evaluates: the user's, else the pairs that the corpus holds out. UserError: neither."""
    given = {key(text): text.partition("=")[2] for text in request.overrides}
    if {"evaluate.sts", "evaluate.retrieval"} & given.keys():
        return list(request.overrides)
    held_out = Path(given["data.shards"]) / HELD_OUT if "data.shards" in given else None
    if held_out is not None and held_out.is_file():
        return [*request.overrides, f"evaluate.retrieval={held_out}"]
    raise UserError(
        "nothing evaluates the runs: evaluate.sts and evaluate.retrieval are absent, and data.shards holds no pairs of its own. "
        "Write evaluate.sts=FILE (pairs with scores), or prepare the corpus with unsee prepare --dev 1000."
    )


def run_all(units: Sequence[Unit], tasks: EvaluationRequest) -> None:
    if tasks.engine == RAY:
        run_on_ray(units, tasks, progress_console())
        return
    stop = StopSignal()
    try:
        run_here(units, tasks, progress_console(), stop)
    finally:
        stop.close()


def _check_output(out: Path) -> None:
    """UserError, before hours of training: the page or the results cannot be written, or are somebody else's files."""
    check_target(out / NAME)
    check_results(out / RESULTS)


def write(results: Results, out: Path) -> None:
    write_results(results, out / RESULTS)
    write_page(page(results, out), out / NAME)
    LOG.info(headline(results))
    for sentence in sentences(results):
        LOG.info(sentence)
    LOG.info(f"report: {out / NAME}, and {out / RESULTS}")
