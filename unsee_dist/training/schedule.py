"""The learning rate by update. Counted in applied updates, so a skipped step does not change it.

lr_u = peak · u / W                     for u ≤ W        W = warmup · U
lr_u = peak · (U − u + 1) / (U − W)     afterwards       U updates in all, u = 1..U
"""

from __future__ import annotations

import math

from unsee_dist.config.sections import TrainSettings


def learning_rate(update: int, updates: int, peak: float, warmup: float) -> float:
    """The rate of an update (1..updates); `warmup` is the fraction of the updates that rise."""
    rising = rising_steps(updates, warmup)
    if update <= rising:
        return peak * update / rising
    return peak * max(0, updates - update + 1) / (updates - rising)


def rising_steps(updates: int, warmup: float) -> int:
    """How many of the updates rise to the peak."""
    return round(warmup * updates)


def encoder_waits(update: int, updates: int, projector_first: float) -> bool:
    """Whether only the projector is trained in this update (1..updates)."""
    return update <= round(projector_first * updates)


def total_steps(train: TrainSettings, sentences: int) -> int:
    """`train.steps` when it is a number; else the whole batches in `train.epochs` passes over the corpus, at least 1."""
    if train.steps is not None:
        return train.steps
    assert train.epochs is not None
    return max(1, math.floor(train.epochs * sentences / train.batch))
