"""The names of what a run measures, and which of them decides."""

from __future__ import annotations

import math
from collections.abc import Mapping


def best_metric(scores: Mapping[str, float]) -> tuple[str, float] | None:
    """What decides which checkpoint is best: dev/sts where configured, else dev/mrr. NaN is never best, nor is one point."""
    for name in ("dev/sts", "dev/mrr"):
        if name in scores:
            usable = math.isfinite(scores[name]) and not scores.get("dev/collapsed")
            return (name, scores[name]) if usable else None
    return None
