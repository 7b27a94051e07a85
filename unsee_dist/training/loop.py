"""The loop: every step in order, and what happens every so many of them.

A run is a function of (config, seed, corpus): the loop takes its place from `Progress` and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from unsee_dist.config.sections import DecaySchedule, GuardSettings
from unsee_dist.data.stream.stream import Batch, Stream
from unsee_dist.distributed.engine import Engine
from unsee_dist.distributed.world import SharedUserError, World
from unsee_dist.metrics.names import (
    BEST,
    DAMAGED,
    DECAY,
    DISTANCE,
    GRAD_NORM,
    LOSS,
    LR,
    SENTENCES,
    SENTENCES_PER_S,
    SKIPPED,
    STEP,
    TOKENS_PER_S,
    WAIT,
    best_metric,
    dev,
)
from unsee_dist.model.target import Target, decay_at
from unsee_dist.supervision.phases import enter_phase
from unsee_dist.supervision.signals import Stopped, StopSignal
from unsee_dist.tracking.recorder import RunRecorder
from unsee_dist.training.checkpoint.manifest import Facts, Identity
from unsee_dist.training.checkpoint.saving import Saver
from unsee_dist.training.guard import Action, after_evaluation, after_step, healthy
from unsee_dist.training.progress import Best, Progress
from unsee_dist.training.schedule import learning_rate
from unsee_dist.training.step import StepResult, seed_step, train_step


@dataclass(frozen=True)
class Plan:
    """Everything the loop must know of the configuration; cadences in steps."""

    seed: int
    steps: int
    batch: int
    lr: float
    warmup: float
    decay: float
    decay_schedule: DecaySchedule
    evaluate_every: int
    checkpoint_every: int
    keep: int
    say_every: int
    guard: GuardSettings


@dataclass(frozen=True)
class Training:
    """The built run. evaluate() -> scores, baseline() those of TF-IDF; export(name) writes the encoder to <folder>/<name>;
    rewind() brings everything back to the newest checkpoint, or raises ValueError. All collective."""

    plan: Plan
    progress: Progress
    engine: Engine
    target: Target | None
    stream: Stream
    recorder: RunRecorder
    saver: Saver
    stop: StopSignal
    folder: Path
    identity: Identity
    evaluate: Callable[[], dict[str, float]]
    baseline: Callable[[], dict[str, float]]
    export: Callable[[str], None]
    rewind: Callable[[], None]


class RollBack(Exception):
    """The guard wants the last checkpoint."""


def train(run: Training) -> dict[str, float]:
    """Take every step that is left, then export `final/`. Returns the last scores ({} when no step was left).

    Raises Stopped once a checkpoint of the last step is on the disk, when any rank was asked to stop.
    """
    try:
        scores = _to_the_end(run)
    except Stopped:
        run.saver.wait()
        if run.progress.step > 0:
            save(run)
        run.saver.wait()
        raise
    run.saver.wait()
    enter_phase("export", run.progress.step)
    run.export("final")
    return scores


def _to_the_end(run: Training) -> dict[str, float]:
    scores: dict[str, float] = {}
    while True:
        pause(run)
        if run.progress.evaluated < run.progress.step and _is_evaluated(run.plan, run.progress.step):
            scores = evaluate(run)  # before the first step, or where a stop cut an evaluation short
        try:
            return _steps(run) or scores
        except RollBack:
            run.saver.wait()
            run.rewind()
            run.saver.saved = None
            run.progress.guard.rollbacks += 1


def _steps(run: Training) -> dict[str, float]:
    plan, progress, world = run.plan, run.progress, run.engine.world
    scores: dict[str, float] = {}
    enter_phase("wait", progress.step + 1)
    ready = time.perf_counter()
    for batch in run.stream.batches(progress.step + 1, plan.steps):
        arrived = time.perf_counter()
        taken, rates = step_once(run, batch)
        done = time.perf_counter()
        speed = {SENTENCES_PER_S: plan.batch / (done - ready), WAIT: (arrived - ready) / (done - ready)}
        speed[TOKENS_PER_S] = batch.tokens * world.size / (done - ready)
        damaged = {DAMAGED: batch.damaged} if batch.damaged else {}  # sentences that others stand in for
        run.recorder.step(line(run, taken, *rates) | damaged | speed)
        _act_on(run, *after_step(plan.guard, progress.guard, batch.step, taken.loss, taken.applied))
        if taken.asked:
            raise Stopped
        at_end = batch.step == plan.steps
        evaluated, saved = _is_evaluated(plan, batch.step), at_end or batch.step % plan.checkpoint_every == 0
        if evaluated:
            scores = evaluate(run)
        if saved:
            save(run)
        if (evaluated or saved) and not at_end:
            pause(run)
        ready = time.perf_counter() if evaluated or saved else done
        enter_phase("wait", batch.step + 1)
    return scores


def step_once(run: Training, batch: Batch) -> tuple[StepResult, tuple[float, float]]:
    """One step under its learning rate and decay."""
    plan, progress, world = run.plan, run.progress, run.engine.world
    seed_step(plan.seed, batch.step, world.rank)
    update = progress.updates + 1
    lr = learning_rate(update, plan.steps, plan.lr, plan.warmup)
    decay = decay_at(update, plan.steps, plan.decay, plan.decay_schedule)
    taken = train_step(run.engine, run.target, batch.to(world.device), lr, decay, run.stop)
    progress.step, progress.updates = batch.step, progress.updates + taken.applied
    run.recorder.trace(batch.step, batch.ids)
    return taken, (lr, decay)


def line(run: Training, taken: StepResult, lr: float, decay: float) -> dict[str, Any]:
    """A training line of metrics.jsonl; `distance` (‖θ-ξ‖/‖θ‖) on the lines that are said."""
    step = run.progress.step
    found = {STEP: step, LOSS: taken.loss, **taken.terms, LR: lr, GRAD_NORM: taken.grad_norm}
    if run.target is not None:
        found[DECAY] = decay
        if step % run.plan.say_every == 0 or step == run.plan.steps:
            found[DISTANCE] = distance(run.engine, run.target)
    return found | {SENTENCES: step * run.plan.batch, SKIPPED: run.progress.skipped}


def distance(engine: Engine, target: Target) -> float:
    """‖θ - ξ‖ / ‖θ‖ over all followed weights. Collective."""
    squares = target.squares().to(engine.world.device)
    if engine.world.size > 1 and engine.stage > 0:
        dist.all_reduce(squares)
    gap, size = torch.sqrt(squares).tolist()
    return float(gap / size)


def evaluate(run: Training) -> dict[str, float]:
    """Evaluate, record, and keep the encoder as `best/` (dev/best = 1) when none before was better."""
    enter_phase("evaluation")
    scores = of_rank_0(run.engine.world, run.evaluate())
    progress = run.progress
    if run.target is not None:
        scores[dev(DISTANCE)] = distance(run.engine, run.target)
    decided = best_metric(scores)
    # `best/` is the best of what training made, the untrained encoder is beside it in the table; and an order of
    # cosines that differ by 1e-6 can score well: what has collapsed is not best
    better = (
        progress.step > 0
        and decided is not None
        and healthy(run.plan.guard, scores)
        and (progress.best is None or decided[1] > progress.best.value)
    )
    run.recorder.evaluation({STEP: progress.step, **scores, dev(BEST): float(better)}, better)
    if progress.step == 0:
        progress.before = scores
    if better and decided is not None:
        metric, value = decided
        progress.best = Best(metric, value, progress.step, scores)
        enter_phase("export")
        run.export("best")
    progress.evaluated = progress.step
    _act_on(run, *after_evaluation(run.plan.guard, progress.guard, scores))
    return scores


def of_rank_0(world: World, scores: dict[str, float]) -> dict[str, float]:
    """What hangs on a score is decided once: hosts of different make differ in the last digit. Collective."""
    said = [scores]
    if world.size > 1:
        dist.broadcast_object_list(said, src=0)
    return said[0]


def save(run: Training) -> None:
    """Write a checkpoint of this step; the records reach the disk before it counts."""
    progress = run.progress
    if run.saver.saved == progress.step:
        return
    enter_phase("save")
    run.recorder.flush()
    folder = run.folder / "checkpoints" / f"step-{progress.step:08d}"
    facts = Facts(run.identity, progress, run.recorder.mlflow_run)
    run.saver.save(folder, run.engine, run.target, facts, keep=run.plan.keep)


def pause(run: Training) -> None:
    """Raises Stopped when any rank was asked to stop. Collective."""
    if run.stop.agreed(run.engine.world):
        raise Stopped


def _act_on(run: Training, action: Action, sentence: str) -> None:
    """Do what the guard says; equal on every rank."""
    if action is Action.STOP:
        raise SharedUserError(sentence)
    if sentence:
        run.recorder.warn(sentence)
    if action is Action.ROLL_BACK:
        raise RollBack


def _is_evaluated(plan: Plan, step: int) -> bool:
    return step == plan.steps or step % plan.evaluate_every == 0
