"""One step: encode each sentence under fresh dropout, compute the loss, update the weights, then the target.

The order matters: nothing is updated before every rank knows that loss and gradient are finite; then weights,
objective state and target are all updated, or none of them.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from unsee_dist.data.stream.stream import Batch
from unsee_dist.distributed.engine import Engine
from unsee_dist.distributed.memory import (
    is_out_of_memory,
    memory_for_state,
    no_room_for_state,
    was_for_state,
)
from unsee_dist.errors import UserError
from unsee_dist.model.target import Target
from unsee_dist.model.unsee import Unsee
from unsee_dist.objectives.outcome import Stateful
from unsee_dist.supervision.phases import enter_phase
from unsee_dist.supervision.signals import StopSignal


@dataclass(frozen=True)
class StepResult:
    """The result of a step. loss and terms: of the global batch, both directions summed. grad_norm: before clipping.

    applied: the weights were updated. overflow: they were not, because the gradients were too large for fp16, whose loss
    scale is now lower. stop_requested: some rank received a signal; equal on all ranks.
    """

    loss: float
    terms: dict[str, float]
    grad_norm: float
    applied: bool
    overflow: bool
    stop_requested: bool


def train_step(
    engine: Engine[Unsee],
    target: Target | None,
    batch: Batch,
    lr: float,
    decay: float,
    stop: StopSignal | None = None,
) -> StepResult:
    """Train on this rank's part of a step. Collective: the result is the same on every rank."""
    model = engine.module
    with explain_out_of_memory(batch):
        enter_phase("forward", batch.step)
        loss, terms = engine(batch.micro_batches)
        enter_phase("backward")
        engine.backward(loss)
    with memory_for_state():
        enter_phase("finish")
        requested = loss.new_full((1,), float(stop is not None and stop.requested))
        local = torch.cat([loss.detach().view(1), terms, requested])
        (mean_loss, *mean_terms, requests), grad_norm = engine.reduce(local)
        enter_phase("update")
        applied = math.isfinite(mean_loss) and math.isfinite(grad_norm)
        if applied:
            engine.step(lr, grad_norm)
        else:
            engine.discard()
        overflow = not applied and math.isfinite(mean_loss) and engine.lower_loss_scale()
        objective = model.objective
        if isinstance(objective, Stateful):
            objective.commit() if applied else objective.discard()
        enter_phase("ema")
        if applied and target is not None:
            target.follow(decay)
    enter_phase("log")
    means = dict(zip(model.terms, mean_terms, strict=True))
    return StepResult(mean_loss, means, grad_norm, applied, overflow, requests > 0)


@contextmanager
def explain_out_of_memory(batch: Batch) -> Iterator[None]:
    """Turn an out-of-memory error of a GPU or a CPU into a UserError that names what helps: the micro-batch to try next,
    or where the memory was for gradients and the optimizer, more ranks."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_out_of_memory(error):
            raise
        if was_for_state(error):
            raise no_room_for_state(error) from error
        largest = max(micro_batch.sentences for micro_batch in batch.micro_batches)
        remedy = (
            f"Write train.micro_batch={largest // 2}: a step then needs less at once."
            if largest > 1
            else "A single sentence does not fit: lower model.max_tokens, or use more ranks and parallel.zero=3."
        )
        raise UserError(
            f"train.micro_batch = {largest} does not fit into the memory of {socket.gethostname()} at step "
            f"{batch.step}: {str(error).splitlines()[0]} {remedy}"
        ) from error
