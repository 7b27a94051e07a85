"""The learning rate by update. Counted in applied updates, so a skipped step does not change it.

lr_u = peak · u / W                     for u ≤ W        W = warmup · U
lr_u = peak · (U − u + 1) / (U − W)     afterwards       U updates in all, u = 1..U
"""

from __future__ import annotations

import math


def learning_rate(update: int, updates: int, peak: float, warmup: float) -> float:
    """The rate of an update (1..updates); `warmup` is the fraction of the updates that rise."""
    rising = round(warmup * updates)
    if update <= rising:
        return peak * update / rising
    return peak * max(0, updates - update + 1) / (updates - rising)


def total_steps(steps: int | None, epochs: float | None, sentences: int, batch: int) -> int:
    """`steps` when it is a number; else as many whole batches as `epochs` passes over the corpus hold, at least 1."""
    if steps is not None:
        return steps
    assert epochs is not None
    return max(1, math.floor(epochs * sentences / batch))
