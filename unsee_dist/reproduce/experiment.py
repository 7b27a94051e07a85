"""What an experiment is, as data: a question, the arms that answer it, and how the answer is shown.

An arm is a preset and what it changes; all arms of a plan share the plan's settings and the seeds. `small` is meant for two cores
and half an hour; `full` is the paper's setting for a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from unsee_dist.config.spelling import closest
from unsee_dist.errors import UserError

BEFORE = "before training"  # what an arm may be compared with: the encoder it began with


@dataclass(frozen=True)
class Arm:
    """A row of the table. name: also of its folders. settings: `key=value`, which nobody may override.

    trainer: "" = ours, else a peer of bench/sentence_trainer.py, which trains for as many seconds as the arm `as_long_as` did.
    start: where arms begin with different encoders, the name of this one's; encoder: its folder, "" = the user's.
    """

    name: str
    preset: str
    settings: tuple[str, ...] = ()
    trainer: str = ""
    as_long_as: str = ""
    start: str = ""
    encoder: str = ""


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
    small: bool = False

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
    starts: bool = False  # its arms are trained from each of several encoders

    def plan(self, small: bool) -> Plan:
        return replace(self.small, small=True) if small else self.full


def from_each(plan: Plan, starts: Mapping[str, str]) -> Plan:
    """The plan with each of its arms from each start, and their claims. starts: folders by name, "" = the user's encoder."""
    arms, claims = [], []
    for name, folder in starts.items():
        arms += [replace(arm, name=f"{name}-{arm.name}", start=name, encoder=folder) for arm in plan.arms]
        for claim in plan.claims:
            against = claim.against if claim.against == BEFORE else f"{name}-{claim.against}"
            claims.append(Claim(f"{name}-{claim.arm}", against))
    return replace(plan, arms=tuple(arms), claims=tuple(claims))


def only(plan: Plan, names: Sequence[str]) -> Plan:
    """The plan with these arms alone, in its own order, and the claims that they settle. UserError: there is no such arm, or it is
    trained as long as one that is left out."""
    there = [arm.name for arm in plan.arms]
    for name in names:
        if name not in there:
            near = closest(name, there)
            meant = f"did you mean {near}? It has" if near else "it has"
            raise UserError(f"--arm {name}: there is no such arm; {meant} {', '.join(there)}.")
    arms = tuple(arm for arm in plan.arms if arm.name in names)
    for arm in arms:
        if arm.as_long_as and arm.as_long_as not in names:
            raise UserError(
                f"--arm {arm.name} is trained for as many seconds as {arm.as_long_as}. Write --arm {arm.as_long_as} as well."
            )
    claims = tuple(claim for claim in plan.claims if claim.arm in names and claim.against in (*names, BEFORE))
    return replace(plan, arms=arms, claims=claims)


def key(setting: str) -> str:
    return setting.partition("=")[0]


def against_all(arms: Sequence[str], others: Sequence[str]) -> tuple[Claim, ...]:
    """A claim for each of `arms` against each of `others`."""
    return tuple(Claim(arm, other) for arm in arms for other in others)
