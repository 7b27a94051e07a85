"""The loop: every step in order, with evaluations and checkpoints at their intervals.

A run is a function of (config, seed, corpus): `Progress` alone says which step is next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from unsee_dist.config.sections import RunConfig, every_steps
from unsee_dist.data.stream.stream import Batch, Stream
from unsee_dist.distributed.engine import Engine
from unsee_dist.distributed.shared_errors import SharedUserError
from unsee_dist.distributed.world import from_rank_0
from unsee_dist.metrics.names import (
    BEST,
    DAMAGED,
    DECAY,
    DISTANCE,
    GRAD_NORM,
    LOSS,
    LR,
    PASSED_OVER,
    SENTENCES,
    SENTENCES_PER_S,
    SKIPPED,
    STEP,
    TOKENS_PER_S,
    WAIT,
    best_metric,
    dev,
)
from unsee_dist.metrics.verdict import gain_over
from unsee_dist.model.compiled import Compilations
from unsee_dist.model.target import Target, decay_at
from unsee_dist.model.unsee import Unsee
from unsee_dist.supervision.phases import enter_phase
from unsee_dist.supervision.signals import Stopped, StopSignal
from unsee_dist.tracking.note import BEST_EXPORT, FINAL_EXPORT
from unsee_dist.tracking.recorder import RunRecorder
from unsee_dist.training.checkpoint.directory import CHECKPOINTS, checkpoint_name
from unsee_dist.training.checkpoint.manifest import CheckpointInfo, Identity
from unsee_dist.training.checkpoint.saving import Saver
from unsee_dist.training.guard import Action, after_evaluation, after_step
from unsee_dist.training.progress import Best, Progress
from unsee_dist.training.schedule import encoder_waits, learning_rate
from unsee_dist.training.step import StepResult, train_step

CONSOLE_LINES = 100  # log lines of a run on the console


class RunBroken(SharedUserError):
    """The guard ends the run, for what its settings make of the encoder: it says nothing of the machine or the corpus."""


@dataclass(frozen=True)
class Training:
    """The objects of a run. steps: of the whole run. complete: none is left, and final/ is there. evaluate() -> scores,
    baseline() -> those of TF-IDF; export(name) writes the encoder to <folder>/<name>; rewind() restores the newest checkpoint, or raises UserError. All collective."""

    config: RunConfig
    steps: int
    complete: bool
    progress: Progress
    engine: Engine[Unsee]
    target: Target | None
    compilations: Compilations | None
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

    @property
    def evaluate_every(self) -> int:
        return every_steps(self.config.evaluate.every, self.steps)

    @property
    def checkpoint_every(self) -> int:
        return every_steps(self.config.checkpoint.every, self.steps)


def console_every(steps: int) -> int:
    """Steps between two lines on the console."""
    return max(1, steps // CONSOLE_LINES)


class RollBack(Exception):
    """The guard has decided to return to the last checkpoint."""


def train(run: Training) -> None:
    """Train all remaining steps, then export `final/`.

    Raises Stopped when any rank received a signal, after a checkpoint of the last step is on the disk.
    """
    if run.progress.step < run.steps:
        run.saver.require_room(run.folder, run.engine, run.target)
    try:
        _train_to_the_end(run)
    except Stopped:
        run.saver.wait()
        if run.progress.step > 0:
            save(run)
        run.saver.wait()
        raise
    if run.compilations is not None:
        run.recorder.say(str(run.compilations))
    run.recorder.doing("saving")
    run.saver.wait()
    enter_phase("export", run.progress.step)
    run.recorder.doing("export")
    run.export(FINAL_EXPORT)


def _train_to_the_end(run: Training) -> None:
    while True:
        raise_if_stopped(run)
        if run.progress.evaluated < run.progress.step and _is_evaluated(run, run.progress.step):
            evaluate(run)  # before the first step, or where a stop cut an evaluation short
            if run.progress.step > run.progress.started:  # else the next start would evaluate again
                run.saver.wait()
                run.saver.saved = None
                save(run)
        if run.progress.step < run.steps and run.progress.is_out_of(run.config.evaluate.patience):
            end_early(run)  # a kill came between its last evaluation and its end
            return
        try:
            _train_steps(run)
            return
        except RollBack:
            return_to_checkpoint(run)


def return_to_checkpoint(run: Training) -> None:
    """Restore the newest checkpoint and go on after the step that was reached: the steps between would fail again. The
    decision is in a checkpoint at once. Collective."""
    reached = run.progress.step
    run.saver.wait()
    run.rewind()
    run.saver.saved = None
    progress = run.progress
    progress.guard.rollbacks += 1
    run.recorder.warn(
        f"steps {progress.step + 1} to {reached} are passed over: {(reached - progress.step) * run.config.train.batch} "
        "sentences of this epoch are not trained on"
    )
    progress.pass_over(reached)
    save(run)


def _train_steps(run: Training) -> None:
    config, progress, world = run.config, run.progress, run.engine.world
    enter_phase("wait", progress.step + 1)
    started = time.perf_counter()
    for batch in run.stream.batches(progress.step + 1, run.steps):
        received = time.perf_counter()
        result, rates = run_step(run, batch)
        done = time.perf_counter()
        duration = done - started
        report_compilations(run)
        speed = {SENTENCES_PER_S: config.train.batch / duration, WAIT: (received - started) / duration}
        speed[TOKENS_PER_S] = batch.tokens * world.size / duration
        run.recorder.took("step", duration)
        damaged = {DAMAGED: batch.damaged} if batch.damaged else {}  # sentences that others replace
        run.recorder.step(metrics_line(run, result, *rates) | damaged | speed)
        decision = after_step(
            config.guard, progress.guard, batch.step, result.loss, result.applied, result.overflow
        )
        _apply_guard(run, *decision)
        if result.stop_requested:
            raise Stopped
        is_last = batch.step == run.steps
        evaluated = _is_evaluated(run, batch.step)
        saved = is_last or batch.step % run.checkpoint_every == 0
        if evaluated:
            evaluate(run)
        if saved:
            save(run)
        if evaluated and not is_last and progress.is_out_of(config.evaluate.patience):
            end_early(run)
            return
        if (evaluated or saved) and not is_last:
            raise_if_stopped(run)
        started = time.perf_counter() if evaluated or saved else done
        enter_phase("wait", batch.step + 1)


def report_compilations(run: Training) -> None:
    """Say what rank 0 has compiled in the last step; a graph of a shape that had one is a warning."""
    for graph in run.compilations.news() if run.compilations is not None else ():
        if graph.again:
            run.recorder.warn(
                f"{graph}, again: the graph that it had did not fit. It costs as long each time"
            )
        else:
            run.recorder.say(str(graph))


def end_early(run: Training) -> None:
    """End a run whose patience is over, with a checkpoint of this step: with more patience it goes on from there."""
    save(run)
    progress = run.progress
    best = (
        f"{progress.best.metric} {progress.best.value:.4g} of step {progress.best.step}"
        if progress.best
        else "none"
    )
    run.recorder.say(
        f"ended early after step {progress.step} of {run.steps}: {progress.waited} evaluations in a row without a better score "
        f"than {best} (evaluate.patience = {run.config.evaluate.patience})"
    )


def run_step(run: Training, batch: Batch) -> tuple[StepResult, tuple[float, float]]:
    """Train one step; returns its result, and its learning rate and decay."""
    config, progress, world = run.config, run.progress, run.engine.world
    update = progress.updates + 1
    lr = learning_rate(update, run.steps, config.train.lr, config.train.warmup)
    decay = decay_at(update, run.steps, config.target.decay, config.target.schedule)
    run.engine.hold(encoder_waits(update, run.steps, config.train.projector_first))
    result = train_step(run.engine, run.target, batch.to(world.device), lr, decay, run.stop)
    progress.step, progress.updates = batch.step, progress.updates + result.applied
    run.recorder.trace(batch.step, batch.ids)
    return result, (lr, decay)


def metrics_line(run: Training, result: StepResult, lr: float, decay: float) -> dict[str, float]:
    """A training line of metrics.jsonl; `distance` (‖θ-ξ‖/‖θ‖) on the lines that the console prints."""
    step = run.progress.step
    line = {STEP: step, LOSS: result.loss, **result.terms, LR: lr, GRAD_NORM: result.grad_norm}
    if run.target is not None:
        line[DECAY] = decay
        if step % console_every(run.steps) == 0 or step == run.steps:
            line[DISTANCE] = distance(run.engine, run.target)
    if run.progress.passed_over:
        line[PASSED_OVER] = run.progress.passed_over
    return line | {SENTENCES: step * run.config.train.batch, SKIPPED: run.progress.skipped}


def distance(engine: Engine[Unsee], target: Target) -> float:
    """‖θ - ξ‖ / ‖θ‖ over all followed weights. Collective."""
    squares = target.squares().to(engine.world.device)
    if engine.world.size > 1 and engine.stage > 0:
        dist.all_reduce(squares)
    gap, size = torch.sqrt(squares).tolist()
    return float(gap / size)


def evaluate(run: Training) -> None:
    """Evaluate, record, and export the encoder as `best/` (dev/best = 1) when no earlier one was as good."""
    enter_phase("evaluation")
    run.recorder.doing("evaluation")
    began, progress = time.perf_counter(), run.progress
    scores = from_rank_0(
        run.engine.world, run.evaluate()
    )  # hosts with different CPUs differ in the last digit
    if progress.step > progress.started:
        scores |= gain_over(progress.before, scores)
    if run.target is not None:
        scores[dev(DISTANCE)] = distance(run.engine, run.target)
    deciding = best_metric(scores)
    # Not before the first step: `best/` is the best encoder that training made. A collapsed one has no deciding score:
    # cosines that differ by 1e-6 can be in an order that scores well.
    better = (
        progress.step > progress.started
        and deciding is not None
        and (progress.best is None or deciding[1] > progress.best.value)
    )
    run.recorder.evaluation({STEP: progress.step, **scores, dev(BEST): float(better)}, better)
    if progress.step == progress.started:
        progress.before = scores
    progress.scores = scores
    if better and deciding is not None:
        metric, value = deciding
        progress.best = Best(metric, value, progress.step, scores)
        enter_phase("export")
        run.export(BEST_EXPORT)
    progress.evaluated = progress.step
    progress.waited = 0 if better or progress.step == progress.started else progress.waited + 1
    run.recorder.took("evaluation", time.perf_counter() - began)
    run.recorder.doing("training")
    best = progress.best.step if progress.best else None
    _apply_guard(run, *after_evaluation(run.config.guard, progress.guard, scores, best))


def save(run: Training) -> None:
    """Write a checkpoint of this step. Metrics are flushed first: a checkpoint must not be ahead of them."""
    progress = run.progress
    if run.saver.saved == progress.step:
        return
    enter_phase("save")
    run.recorder.doing("saving")
    began = time.perf_counter()
    run.recorder.flush()
    progress.lines = run.recorder.lines
    folder = run.folder / CHECKPOINTS / checkpoint_name(progress.step)
    info = CheckpointInfo(run.identity, progress, run.recorder.mlflow_run)
    run.saver.save(folder, run.engine, run.target, info, keep=run.config.checkpoint.keep)
    run.recorder.took("save", time.perf_counter() - began)
    run.recorder.doing("training")


def raise_if_stopped(run: Training) -> None:
    """Raise Stopped when any rank received a signal. Collective."""
    if run.stop.requested_anywhere(run.engine.world):
        raise Stopped


def _apply_guard(run: Training, action: Action, message: str) -> None:
    """Carry out the guard's decision, which is equal on every rank."""
    if action is Action.STOP:
        raise RunBroken(message)
    if message:
        run.recorder.warn(message)
    if action is Action.ROLL_BACK:
        raise RollBack


def _is_evaluated(run: Training, step: int) -> bool:
    return step == run.progress.started or step == run.steps or step % run.evaluate_every == 0
