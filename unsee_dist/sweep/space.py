"""The search space: which keys of a run vary, over what, and under which condition.

    space:
      objective.name: {choice: [vicreg, barlow_twins]}
      train.lr: {loguniform: [1e-5, 3e-4]}
      objective.covariance: {loguniform: [0.1, 10], when: {objective.name: vicreg}}

Pure: no Ray, no files. A point is {key: value} of the axes whose condition holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unsee_dist.config.layers import Layer, Typed
from unsee_dist.config.load import LEGAL
from unsee_dist.config.mistakes import Mistake
from unsee_dist.config.spelling import closest, closest_key
from unsee_dist.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

KINDS = ("choice", "uniform", "loguniform", "integer")
MOST = 10_000  # points of a grid
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
        return all(_is_among(point.get(key, fixed.get(key)), legal) for key, legal in self.when.items())

    def samples(self) -> tuple[Any, ...]:
        """The choices; of a range the ends, and a value between that is whole only where all are."""
        if self.kind == "choice":
            return self.values
        low, high = self.values
        return low, high, low + 1 if self.kind == "integer" else low + 0.382 * (high - low)

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
        """Every combination, the last axis running fastest; axes must be choices. UserError: there are too many."""
        points: list[Point] = [{}]
        for axis in self.axes:
            longer = (
                point | more
                for point in points
                for more in ([{axis.key: v} for v in axis.values] if axis.holds(point, self.fixed) else [{}])
            )
            points = list(itertools.islice(longer, MOST + 1))  # two long axes are more than a memory holds
            if len(points) > MOST:
                raise UserError(
                    f"sweep.search = grid has more than {MOST:,} points. Write fewer choices, or sweep.search: tpe and "
                    "sweep.trials."
                )
        return points

    def corners(self) -> Iterator[Point]:
        """Points that together hold every choice and both ends of every range and a value between, each under its condition.

        As many as there are values, not as there are combinations: a space of many conditions is checked as soon.
        """
        for place, axis in enumerate(self.axes):
            for turn, value in enumerate(axis.samples()):
                given = self._point_of([*axis.when.items()], {axis.key: value})
                if given is not None:
                    yield self._filled(given, place + turn)
        for name in self._by_key.get(
            "objective.name", Axis("", "", ())
        ).values:  # each with all that is its own
            for turn in range(max((len(axis.values) for axis in self.axes), default=1)):
                yield self._filled({"objective.name": name}, turn)

    def _filled(self, given: Point, turn: int) -> Point:
        """The point with a value of each other axis that is active: a range's other end beside a choice's next value."""
        point: Point = {}
        for axis in self.axes:
            if axis.holds(point, self.fixed):
                point[axis.key] = given.get(axis.key, axis.values[turn % len(axis.values)])
        return point

    def unreachable(self) -> list[Axis]:
        """The axes whose condition holds at no point."""
        return [axis for axis in self.axes if self._point_of([*axis.when.items()], {}) is None]

    def never_met(self, axis: Axis) -> Iterator[tuple[str, str]]:
        """The values of conditions that no point has, each with its key, where another value of the condition is met."""
        for key, legal in axis.when.items():
            for value in legal if len(legal) > 1 else ():
                conditions = [*{**axis.when, key: (value,)}.items()]
                if self._point_of(conditions, {}) is None:
                    yield key, value

    def why_never(self, axis: Axis) -> str:
        """What the conditions of an axis ask for, and its values."""
        can = {key: self._values_of(key) for key in axis.when}
        return "; ".join(
            f"{key} is {' or '.join(values) or 'a number of a range'}" for key, values in can.items()
        )

    def _values_of(self, key: str) -> list[str]:
        axis = self._by_key.get(key)
        if axis is None:
            return [str(self.fixed.get(key))]
        return [str(value) for value in axis.values] if axis.kind == "choice" else []

    def _point_of(self, conditions: Sequence[tuple[str, tuple[str, ...]]], given: Point) -> Point | None:
        """`given` with values of axes under which all conditions hold, those of these axes, too; None when none do."""
        if not conditions:
            return given
        (key, legal), *rest = conditions
        axis = self._by_key.get(key)
        if key in given:
            return self._point_of(rest, given) if _is_among(given[key], legal) else None
        if axis is not None and axis.kind == "choice":
            for value in (value for value in axis.values if _is_among(value, legal)):
                point = self._point_of([*rest, *axis.when.items()], given | {key: value})
                if point is not None:
                    return point
        # an axis that is not active leaves the base's value
        by_base = (axis is None or axis.when) and _is_among(self.fixed.get(key), legal)
        return self._point_of(rest, given) if by_base else None

    @property
    def _by_key(self) -> dict[str, Axis]:
        return {axis.key: axis for axis in self.axes}


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
    values = _choices(values) if kind == "choice" else _ends(kind, values)
    return Axis(key, kind, tuple(values), conditions, typed.where)


def _choices(values: Sequence[object]) -> Sequence[object]:
    """The values of a choice, each once and each a plain one."""
    if any(isinstance(value, list | dict) or value in ("...", "{...}") for value in values):
        raise _Wrong("has a choice that is a list or a map", "write plain values: a choice becomes key=value")
    seen: set[object] = set()
    for value in values:
        if _same(value) in seen:
            raise _Wrong(f"has the choice {value} twice", "write it once: two equal trials tell nothing")
        seen.add(_same(value))
    return values


def _is_among(value: object, legal: Iterable[str]) -> bool:
    return _same(value) in map(_same, legal)


def _same(value: object) -> object:
    """Equal for two ways to write one value: 1e-4 and 0.0001, True, on and 1."""
    text = str(value).strip().lower()
    if text in ("true", "yes", "on", "false", "no", "off"):
        return float(text in ("true", "yes", "on"))
    try:
        return float(text)
    except ValueError:
        return text


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
