"""What a search is: how to choose the points, the workers of a trial, what is called, and what Tune knows of a trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unsee_dist.sweep.space import Point

if TYPE_CHECKING:
    import optuna

Numbers = Mapping[str, float]
ReportToTune = Callable[[Numbers], None]  # collective over the ranks of a trial
Work = Callable[[str, Point, ReportToTune], None]  # (trial, point, report), on every rank
Suggest = Callable[["optuna.Trial"], None]  # takes the values of a point from it
Begin = Callable[[str], str | None]  # before each attempt at a trial: why there must be none


@dataclass(frozen=True)
class Study:
    """How to search. metric and mode: of the reports; steps and grace: when a trial may end early."""

    folder: Path
    metric: str
    mode: Literal["max", "min"]
    trials: int
    at_once: int
    search: Literal["tpe", "random"]
    scheduler: Literal["asha", "median", "none"]
    steps: int
    grace: int
    reduction: int
    hours: float | None
    seed: int


@dataclass(frozen=True)
class WorkerGroup:
    """The workers of one trial."""

    ranks: int
    cpus: float
    gpus: float
    retries: int

    def bundle(self) -> dict[str, float]:
        """What one rank takes of a node."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})


TuneStatus = Literal["PENDING", "RUNNING", "PAUSED", "TERMINATED", "ERROR"]


@dataclass(frozen=True)
class TrialState:
    """A trial of Tune. error: the text of the exception that ended it, traceback included."""

    id: str
    status: TuneStatus
    point: Point
    last: Numbers
    error: str | None


Watch = Callable[[Sequence[TrialState]], bool]  # True: stop the search, to be continued later
End = Callable[[str], None]  # ask the workers of a trial to end it


class TrialRefused(RuntimeError):
    """`begin` has refused an attempt at the trial."""


@dataclass(frozen=True)
class Calls:
    """What a search calls: `work` in the workers, `begin` in the trial's process, the others where it was started."""

    work: Work
    begin: Begin
    watch: Watch
    end: End
