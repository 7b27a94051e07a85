"""The search space: which keys of a run vary, over what, and under which condition.

    space:
      objective.name: {choice: [vicreg, barlow_twins]}
      train.lr: {loguniform: [1e-5, 3e-4]}
      objective.covariance: {loguniform: [0.1, 10], when: {objective.name: vicreg}}

Pure: no Ray, no files. A point is {key: value} of the axes whose condition holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unsee_dist.config.layers import Layer, Typed
from unsee_dist.config.load import LEGAL
from unsee_dist.config.mistakes import Mistake, closest, closest_key

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

KINDS = ("choice", "uniform", "loguniform", "integer")
OF_A_TRIAL = ("run.dir", "run.name", "resume")  # what the sweep itself decides

Point = dict[str, Any]


@dataclass(frozen=True)
class Axis:
    """One key and its values: those of a choice, or the two ends (both included) of a range."""

    key: str
    kind: str
    values: tuple[Any, ...]
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    where: str = ""

    def holds(self, point: Mapping[str, Any], fixed: Mapping[str, Any]) -> bool:
        """Does the condition hold, given the axes before this one and the settings that do not vary?"""
        return all(str(point.get(key, fixed.get(key))) in legal for key, legal in self.when.items())

    def distribution(self) -> BaseDistribution:
        """The same in Optuna's words."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "choice":
            return CategoricalDistribution(self.values)
        low, high = self.values
        if self.kind == "integer":
            return IntDistribution(low, high)
        return FloatDistribution(low, high, log=self.kind == "loguniform")


@dataclass(frozen=True)
class Space:
    """The axes, those that others depend on first; `fixed` are the values, as text, of what conditions may ask for."""

    axes: tuple[Axis, ...]
    fixed: Mapping[str, str] = field(default_factory=dict)

    def suggest(self, trial: Trial) -> None:
        """Take a value of every axis that is active: Optuna's define-by-run."""
        point: Point = {}
        for axis in self.axes:
            if not axis.holds(point, self.fixed):
                continue
            if axis.kind == "choice":
                point[axis.key] = trial.suggest_categorical(axis.key, axis.values)
            elif axis.kind == "integer":
                point[axis.key] = trial.suggest_int(axis.key, *axis.values)
            else:
                point[axis.key] = trial.suggest_float(axis.key, *axis.values, log=axis.kind == "loguniform")

    def grid(self) -> list[Point]:
        """Every combination, the last axis running fastest; axes must be choices."""
        points: list[Point] = [{}]
        for axis in self.axes:
            points = [
                longer
                for point in points
                for longer in (
                    [point | {axis.key: value} for value in axis.values]
                    if axis.holds(point, self.fixed)
                    else [point]
                )
            ]
        return points

    def corners(self) -> Iterator[Point]:
        """Points that together hold every choice and both ends of every range, under every condition."""
        conditions = {key for axis in self.axes for key in axis.when} | {"objective.name"}
        deciding = [axis for axis in self.axes if axis.key in conditions and axis.kind == "choice"]
        for values in itertools.product(*(axis.values for axis in deciding)):
            given = {axis.key: value for axis, value in zip(deciding, values, strict=True)}
            active = [axis for axis in self.axes if axis.holds(given, self.fixed)]
            most = max((len(axis.values) for axis in active), default=1)
            for turn in range(most):  # all axes at once: a range's other end beside a choice's next value
                yield {axis.key: given.get(axis.key, axis.values[turn % len(axis.values)]) for axis in active}


def overrides(point: Mapping[str, Any]) -> list[str]:
    """A point as `section.key=value` arguments of `unsee train`."""
    return [f"{key}={'null' if value is None else value}" for key, value in point.items()]


def parse(layer: Layer, mistakes: list[Mistake]) -> tuple[Axis, ...]:
    """The axes that a file's `space:` section describes, in an order in which conditions can be asked."""
    axes = [axis for key, typed in layer.items() if (axis := _axis(key, typed, mistakes)) is not None]
    if not layer:
        mistakes.append(
            Mistake("space", None, "", "is empty", "name what varies: space.train.lr={loguniform: [..]}")
        )
    return tuple(_ordered(axes, mistakes))


def _axis(key: str, typed: Typed, mistakes: list[Mistake]) -> Axis | None:
    try:
        return _read(key, typed)
    except _Wrong as error:
        mistakes.append(Mistake(f"space.{key}", typed.value, typed.where, error.why, error.instead))
        return None


class _Wrong(Exception):
    def __init__(self, why: str, instead: str = "") -> None:
        self.why, self.instead = why, instead


def _read(key: str, typed: Typed) -> Axis:
    if key not in LEGAL:
        raise _Wrong("there is no such key", closest_key(key, LEGAL))
    if key in OF_A_TRIAL:
        raise _Wrong("is decided by the sweep", "leave it out")
    if not isinstance(typed.value, dict):
        raise _Wrong("must say how it varies", "write {choice: [..]}, or {loguniform: [low, high]}")
    given = dict(typed.value)
    when = given.pop("when", {})
    if not isinstance(when, dict) or not all(name in LEGAL for name in when):
        raise _Wrong(f"has a condition {when} that names no key", "write when: {objective.name: vicreg}")
    if len(given) != 1 or next(iter(given)) not in KINDS:
        meant = closest(str(next(iter(given), "")), KINDS)
        instead = f"did you mean {meant}?" if meant else ""
        raise _Wrong(f"must be one of {', '.join(KINDS)}, with an optional when", instead)
    kind, values = next(iter(given.items()))
    if not isinstance(values, list) or not values:
        raise _Wrong(f"{kind} needs a list", "write [a, b]")
    conditions = {
        name: tuple(map(str, legal if isinstance(legal, list) else [legal])) for name, legal in when.items()
    }
    values = values if kind == "choice" else _ends(kind, values)
    return Axis(key, kind, tuple(values), conditions, typed.where)


def _ends(kind: str, values: Sequence[object]) -> tuple[float, float]:
    try:
        low, high = (int(str(end)) if kind == "integer" else float(str(end)) for end in values)
    except ValueError as error:
        raise _Wrong(f"{kind} needs two numbers", f"write {kind}: [low, high]") from error
    if not low < high or (kind == "loguniform" and low <= 0):
        raise _Wrong("is an empty range", "the first end must be the smaller one, and above 0 for loguniform")
    return low, high


def _ordered(axes: Sequence[Axis], mistakes: list[Mistake]) -> Iterator[Axis]:
    """Axes that conditions ask for before those that ask."""
    waiting = list(axes)
    while waiting:
        open_keys = {axis.key for axis in waiting}
        ready = [axis for axis in waiting if not open_keys & set(axis.when)]
        if not ready:
            keys = ", ".join(sorted(open_keys))
            mistakes.append(Mistake("space", None, "", f"the conditions of {keys} ask for each other", ""))
            return
        yield from ready
        waiting = [axis for axis in waiting if axis not in ready]
