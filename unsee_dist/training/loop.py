"""The loop: every step in order, and what happens every so many of them.

A run is a function of (config, seed, corpus): the loop takes its place from `Progress` and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from unsee_dist.data.stream import Stream
from unsee_dist.evaluation.development import best_metric
from unsee_dist.model.target import DecaySchedule, Target, decay_at
from unsee_dist.parallel.engine import Engine
from unsee_dist.parallel.process import World
from unsee_dist.tracking.record import Record
from unsee_dist.training import checkpoint
from unsee_dist.training.schedule import learning_rate
from unsee_dist.training.step import Taken, seed_step, take


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


@dataclass
class Progress:
    """Where a run stands. `step` counts batches read, `updates` those applied; the difference was skipped."""

    step: int = 0
    updates: int = 0
    best: dict[str, Any] | None = None  # {"metric", "value", "step", "scores"}
    before: dict[str, float] = field(default_factory=dict)  # scores of the untrained encoder

    @property
    def skipped(self) -> int:
        return self.step - self.updates


@dataclass(frozen=True)
class Training:
    """The built run. evaluate() -> scores; export(name) writes the encoder to <folder>/<name>; both collective."""

    plan: Plan
    progress: Progress
    engine: Engine
    target: Target | None
    stream: Stream
    record: Record
    folder: Path
    identity: Mapping[str, Any]
    evaluate: Callable[[], dict[str, float]]
    export: Callable[[str], None]


def train(run: Training) -> dict[str, float]:
    """Take every step that is left, then export `final/`. Returns the last scores ({} when no step was left)."""
    plan, progress, world = run.plan, run.progress, run.engine.world
    scores: dict[str, float] = {}
    if progress.step == 0:
        progress.before = judge(run)
    ready = time.perf_counter()
    for batch in run.stream.batches(progress.step + 1, plan.steps):
        arrived = time.perf_counter()
        seed_step(plan.seed, batch.step, world.rank)
        update = progress.updates + 1
        lr = learning_rate(update, plan.steps, plan.lr, plan.warmup)
        decay = decay_at(update, plan.steps, plan.decay, plan.decay_schedule)
        taken = take(run.engine, run.target, batch.to(world.device), lr, decay)
        progress.step, progress.updates = batch.step, progress.updates + taken.applied
        run.record.trace(batch.step, batch.ids)
        done = time.perf_counter()
        speed = {"sentences_per_s": plan.batch / (done - ready), "wait": (arrived - ready) / (done - ready)}
        speed["tokens_per_s"] = batch.tokens * world.size / (done - ready)
        run.record.step(line(run, taken, lr, decay) | speed)
        at_end = batch.step == plan.steps
        if at_end or batch.step % plan.evaluate_every == 0:
            scores = judge(run)
        if at_end or batch.step % plan.checkpoint_every == 0:
            save(run)
        ready = time.perf_counter() if at_end or _paused(plan, batch.step) else done
    run.export("final")
    return scores


def line(run: Training, taken: Taken, lr: float, decay: float) -> dict[str, Any]:
    """A training line of metrics.jsonl; `distance` (‖θ-ξ‖/‖θ‖) on the lines that are said."""
    step = run.progress.step
    found = {"step": step, "loss": taken.loss, **taken.terms, "lr": lr, "grad_norm": taken.grad_norm}
    if run.target is not None:
        found["decay"] = decay
        if step % run.plan.say_every == 0 or step == run.plan.steps:
            found["distance"] = distance(run.engine, run.target)
    return found | {"sentences": step * run.plan.batch, "skipped": run.progress.skipped}


def distance(engine: Engine, target: Target) -> float:
    """‖θ - ξ‖ / ‖θ‖ over all followed weights. Collective."""
    squares = target.squares().to(engine.world.device)
    if engine.world.size > 1 and engine.stage > 0:
        dist.all_reduce(squares)
    gap, size = torch.sqrt(squares).tolist()
    return float(gap / size)


def judge(run: Training) -> dict[str, float]:
    """Evaluate, record, and keep the encoder as `best/` when none before was better."""
    scores = of_rank_0(run.engine.world, run.evaluate())
    decided = best_metric(scores)
    best = run.progress.best
    trained = (
        run.progress.step > 0
    )  # `best/` is the best of what training made; the table shows before beside it
    better = trained and decided is not None and (best is None or decided[1] > best["value"])
    run.record.evaluation({"step": run.progress.step, **scores}, better)
    if better and decided is not None:
        run.progress.best = {
            "metric": decided[0],
            "value": decided[1],
            "step": run.progress.step,
            "scores": scores,
        }
        run.export("best")
    return scores


def of_rank_0(world: World, scores: dict[str, float]) -> dict[str, float]:
    """What hangs on a score is decided once: hosts of different make differ in the last digit. Collective."""
    said = [scores]
    if world.size > 1:
        dist.broadcast_object_list(said, src=0)
    return said[0]


def save(run: Training) -> None:
    """Write a checkpoint of this step; the records reach the disk before it counts."""
    run.record.flush()
    folder = run.folder / "checkpoints" / f"step-{run.progress.step:08d}"
    facts = {**run.identity, **asdict(run.progress), "mlflow_run": run.record.mlflow_run}
    checkpoint.save(folder, run.engine, run.target, facts)
    if run.engine.world.rank == 0:
        checkpoint.retain(folder.parent, run.plan.keep)


def _paused(plan: Plan, step: int) -> bool:
    return step % plan.evaluate_every == 0 or step % plan.checkpoint_every == 0
