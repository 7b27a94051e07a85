"""One step: read each sentence under fresh dropout, compare across encoders, descend, let the target follow.

The order is the law: nothing moves before all ranks know that loss and gradient are finite; then weights,
objective state and target move together, or none of them does.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from unsee_dist.data.stream.stream import Batch
from unsee_dist.distributed.engine import Engine
from unsee_dist.errors import UserError
from unsee_dist.model.target import Target
from unsee_dist.objectives.outcome import Stateful
from unsee_dist.supervision.phases import enter_phase
from unsee_dist.supervision.signals import StopSignal


@dataclass(frozen=True)
class StepResult:
    """What a step did. loss and terms: of the global batch, both directions summed. grad_norm: before clipping.

    asked: some rank was asked to stop; all ranks learn it at the same step.
    """

    loss: float
    terms: dict[str, float]
    grad_norm: float
    applied: bool
    asked: bool


def train_step(
    engine: Engine,
    target: Target | None,
    batch: Batch,
    lr: float,
    decay: float,
    stop: StopSignal | None = None,
) -> StepResult:
    """Train on this rank's part of a step. Collective: the answer is the same on every rank."""
    model = engine.module
    with says_what_fits(batch):
        enter_phase("forward", batch.step)
        loss, terms = engine(batch.micro_batches)
        enter_phase("backward")
        engine.backward(loss)
    enter_phase("finish")
    asked = loss.new_full((1,), float(stop is not None and stop.asked))
    local = torch.cat([loss.detach().view(1), terms, asked])
    (mean_loss, *mean_terms, some_asked), grad_norm = engine.finish(local)
    finite = math.isfinite(mean_loss) and math.isfinite(grad_norm)
    enter_phase("update")
    if finite or engine.precision == "fp16":  # fp16: the engine must see the overflow to lower its loss scale
        applied = engine.step(lr) and finite
    else:
        engine.discard()
        applied = False
    objective = model.objective
    if isinstance(objective, Stateful):
        objective.commit() if applied else objective.discard()
    enter_phase("ema")
    if applied and target is not None:
        target.follow(decay)
    enter_phase("log")
    means = dict(zip(model.terms, mean_terms, strict=True))
    return StepResult(mean_loss, means, grad_norm, applied, some_asked > 0)


def seed_step(seed: int, step: int, rank: int) -> None:
    """The dropout masks of a step depend on (seed, step, rank) alone: nothing is stored, a restart changes nothing."""
    state = np.random.SeedSequence((seed, step, rank)).generate_state(2, np.uint32)
    torch.manual_seed(int(state[0]) << 32 | int(state[1]))


@contextmanager
def says_what_fits(batch: Batch) -> Iterator[None]:
    """Memory that runs out, on a GPU or a CPU, becomes a ValueError with the micro-batch to try next."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        out = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(
            error
        )
        if not out:
            raise
        largest = max(micro_batch.sentences for micro_batch in batch.micro_batches)
        remedy = (
            f"Write train.micro_batch={largest // 2}: it changes no result."
            if largest > 1
            else "A single sentence does not fit: lower model.max_tokens, or use more ranks and parallel.zero=3."
        )
        raise UserError(
            f"train.micro_batch = {largest} does not fit into the memory of {socket.gethostname()} at step "
            f"{batch.step}: {str(error).splitlines()[0]} {remedy}"
        ) from error
