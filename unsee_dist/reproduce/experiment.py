"""What an experiment is, as data: a question, the arms that answer it, and how the answer is shown.

An arm is a preset and what it changes; all arms of a plan share the plan's settings and the seeds. `small` is meant for two cores
and half an hour; `full` is the paper's setting for a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

BEFORE = "before training"  # what an arm may be compared with: the encoder it began with


@dataclass(frozen=True)
class Arm:
    """A row of the table. name: also of its folders. settings: `key=value`, which nobody may override."""

    name: str
    preset: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """That two arms differ: one sentence says whether they do."""

    arm: str
    against: str = BEFORE


@dataclass(frozen=True)
class Chart:
    """A figure.

    kind    steps      the metric over the steps, a colour an arm, thin lines its seeds, the thick one their mean
            arms       the metric at best/ by arm, a dot a seed
            setting    the metric of the last evaluation over the setting `key`, a line a group of arms
            spectrum   the eigenvalues of the last evaluation
    metric: "" = what chose best/. group: of `setting`, the settings whose values make a line.
    """

    kind: Literal["steps", "arms", "setting", "spectrum"]
    metric: str = ""
    key: str = ""
    group: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The runs of an experiment at one size. settings: of all arms, which the user may override."""

    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...]
    settings: tuple[str, ...]
    seeds: int = 3

    @property
    def varied(self) -> frozenset[str]:
        """The settings that make the arms what they are."""
        return frozenset(key(text) for arm in self.arms for text in arm.settings)


@dataclass(frozen=True)
class Experiment:
    name: str
    question: str
    small: Plan
    full: Plan
    charts: tuple[Chart, ...]
    note: str = ""  # what a reader should know before the numbers

    def plan(self, small: bool) -> Plan:
        return self.small if small else self.full


def key(setting: str) -> str:
    return setting.partition("=")[0]


def against_all(arms: Sequence[str], others: Sequence[str]) -> tuple[Claim, ...]:
    """A claim for each of `arms` against each of `others`."""
    return tuple(Claim(arm, other) for arm in arms for other in others)
