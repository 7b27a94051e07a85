"""Failures that do not crash: steps that are not finite, losses that jump, embeddings that collapse.

The numbers are equal on every rank, so all ranks decide the same; the counts are part of a checkpoint, so a resumed
run decides as the uninterrupted one.

    spike       loss > mean + spike · deviation, both exponential averages over about 100 applied steps
    overflow    fp16's gradients were too large for the loss scale, which is lowered: no skip of its own
    skips       k steps in a row that were not applied: return to the last checkpoint, once, and go on after these steps;
                the next time: stop
    collapse    effective rank or std below its bound in n evaluations in a row
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from unsee_dist.config.sections import GuardSettings
from unsee_dist.metrics.names import COLLAPSED, EFFECTIVE_RANK, STD, dev

MEMORY = 0.99  # of the running mean and deviation
SPIKE_FROM_STEP = 50  # applied steps before a loss can be a spike: the running mean needs some


@dataclass
class GuardState:
    """Saved in checkpoints. A roll back keeps `rollbacks` and restores the rest."""

    skips_in_row: int = 0
    rollbacks: int = 0
    spikes: int = 0
    seen: int = 0
    mean: float = 0.0
    variance: float = 0.0
    collapsed_in_row: int = 0


class Action(Enum):
    CONTINUE = "continue"
    ROLL_BACK = "roll back"
    STOP = "stop"


def after_step(
    settings: GuardSettings, state: GuardState, step: int, loss: float, applied: bool, overflow: bool = False
) -> tuple[Action, str]:
    """What to do after a step, and the message to print ("" for none). Updates `state`.

    overflow: the step was not applied, and fp16's loss scale was lowered for the next.
    """
    if applied:
        state.skips_in_row = 0
        return Action.CONTINUE, _spike(settings, state, step, loss)
    if overflow:
        return (
            Action.CONTINUE,
            f"step {step} skipped on all ranks: its gradients overflow in fp16, the loss scale is halved",
        )
    state.skips_in_row += 1
    if state.skips_in_row < settings.skips:
        return (
            Action.CONTINUE,
            f"step {step} skipped on all ranks: loss or gradient is not finite (loss {loss:g})",
        )
    why = f"{state.skips_in_row} steps in a row were not finite (guard.skips = {settings.skips})"
    if state.rollbacks == 0:
        return (
            Action.ROLL_BACK,
            f"{why}: returning to the last checkpoint, once, and going on after step {step}",
        )
    return Action.STOP, (
        f"{why}, again after returning to a checkpoint. Lower train.lr or set train.clip in another run that starts from this "
        "one (run.dir=NEW resume=THIS), or write parallel.precision=fp32. The earlier checkpoints are unchanged."
    )


def _spike(settings: GuardSettings, state: GuardState, step: int, loss: float) -> str:
    distance = loss - state.mean
    deviation = math.sqrt(state.variance)
    jumped = state.seen >= SPIKE_FROM_STEP and distance > settings.spike * deviation
    message = ""
    if jumped:
        state.spikes += 1
        message = (
            f"step {step}: loss {loss:.4g} is {distance / max(deviation, 1e-12):.0f} deviations above its running mean "
            f"{state.mean:.4g} (guard.spike = {settings.spike:g})"
        )
    weight = max(1 - MEMORY, 1 / (state.seen + 1))
    state.mean += weight * distance
    state.variance = (1 - weight) * (state.variance + weight * distance**2)
    state.seen += 1
    return message


def healthy(settings: GuardSettings, scores: Mapping[str, float]) -> bool:
    """Whether the embeddings of an evaluation have not collapsed. NaN has: it is below every bound."""
    rank, std = scores[dev(EFFECTIVE_RANK)], scores[dev(STD)]
    return rank >= settings.effective_rank and std >= settings.std and not scores.get(dev(COLLAPSED))


def with_verdict(settings: GuardSettings, scores: Mapping[str, float]) -> dict[str, float]:
    """The scores with the one verdict on their embeddings, which the guard, trackers, sweeps and exports share."""
    return dict(scores) | {dev(COLLAPSED): float(not healthy(settings, scores))}


def after_evaluation(
    settings: GuardSettings, state: GuardState, scores: Mapping[str, float], best: int | None = None
) -> tuple[Action, str]:
    """What to do after an evaluation, and the message to print ("" for none). Updates `state`. best: the step of `best/`."""
    rank, std = scores[dev(EFFECTIVE_RANK)], scores[dev(STD)]
    state.collapsed_in_row = 0 if healthy(settings, scores) else state.collapsed_in_row + 1
    if state.collapsed_in_row < settings.evaluations:
        return Action.CONTINUE, ""
    why = (
        f"The embeddings have collapsed: effective rank {rank:.1f} (guard.effective_rank = "
        f"{settings.effective_rank:g}), std {std:.2g} (guard.std = {settings.std:g}) in "
        f"{state.collapsed_in_row} evaluations in a row. Lower train.lr, raise the objective's variance or covariance "
        "weight, or use target.kind=ema, in another run.dir; "
        + ("there is no `best/`." if best is None else f"`best/` is of step {best}, before the collapse.")
    )
    return (Action.STOP if settings.collapse == "stop" else Action.CONTINUE), why
