"""Which numbers of a line MLflow draws, under which names.

    Loss and score/loss, Loss and score/sts     the two that are looked at first: a section of charts that sorts before all others
    loss, lr, dev/sts, ...                      every number under its own name
    decay, dev/candidates, skipped, ...         not drawn while they keep their first value: tags of the run at its end

MLflow sorts the sections of its charts by their names, and what has no section comes last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from unsee_dist.metrics.names import (
    CANDIDATES,
    COLLAPSED,
    DAMAGED,
    DECAY,
    DEV,
    LOSS,
    PASSED_OVER,
    SKIPPED,
    STEP,
    TIME,
    best_metric,
    dev,
)

FIRST = "Loss and score"
# Constants of most runs.
STEADY = frozenset((DECAY, SKIPPED, PASSED_OVER, DAMAGED, dev(CANDIDATES), dev(COLLAPSED)))


class Point(NamedTuple):
    """Of a chart, in MLflow's order. at_ms: since 1970."""

    key: str
    value: float
    at_ms: int
    step: int


class Charts:
    """What is new to MLflow of the lines of a run. newest: the last step that it has of each number."""

    def __init__(self, newest: Mapping[str, int]) -> None:
        self._newest = dict(newest)
        self._first: dict[str, Point] = {}  # of numbers that have not changed yet

    @property
    def constants(self) -> dict[str, float]:
        """Numbers that are not drawn, and their one value."""
        return {key: point.value for key, point in self._first.items()}

    def points(self, line: Mapping[str, Any], at_ms: int) -> Iterator[Point]:
        """The points of a line that MLflow does not have."""
        for key, value in _numbers(line):
            point = Point(key, float(value), at_ms, int(line[STEP]))
            if point.step <= self._newest.get(key, -1):
                continue
            if key in STEADY and key not in self._newest:
                first = self._first.setdefault(key, point)
                if first.value == point.value:
                    continue
                yield self._first.pop(key)
            self._newest[key] = point.step
            yield point


def _numbers(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in line.items():
        if isinstance(value, int | float) and math.isfinite(value) and key not in (STEP, TIME):
            yield key, value
            if key == LOSS:
                yield f"{FIRST}/{key}", value
    if (score := best_metric(line)) is not None:
        yield f"{FIRST}/{score[0].removeprefix(DEV)}", score[1]
