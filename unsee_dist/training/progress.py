"""How far a run is: the counts of the loop, saved in and restored from checkpoints.

All fields are saved and restored, so a new field cannot be forgotten.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, fields

from unsee_dist.training.guard import GuardState


@dataclass(frozen=True)
class Best:
    """The evaluation that became `best/`. metric: the name that decides; scores: all of that evaluation."""

    metric: str
    value: float
    step: int
    scores: dict[str, float]


@dataclass
class Progress:
    """`step` counts batches read, `updates` those applied; the difference was skipped.

    passed_over: steps between a checkpoint that the guard returned to and the last step that failed. Trained again, with
    the same data, masks and rates, they would fail again. lines: of metrics.jsonl, at a checkpoint.
    """

    started: int = 0  # the step this run began after: 0, or that of the other run's checkpoint it began with
    step: int = 0
    updates: int = 0
    passed_over: int = 0
    evaluated: int = -1  # the step of the last evaluation
    best: Best | None = None
    waited: int = 0  # evaluations since the best, or since training began where none has a score
    before: dict[str, float] = field(default_factory=dict)  # scores of the encoder the run began with
    scores: dict[str, float] = field(default_factory=dict)  # of the last evaluation
    lines: int = 0
    guard: GuardState = field(default_factory=GuardState)

    @property
    def skipped(self) -> int:
        return self.step - self.updates

    def is_out_of(self, patience: int | None) -> bool:
        """Whether so many evaluations in a row had no better score (`evaluate.patience`; None is never)."""
        return patience is not None and self.waited >= patience

    def pass_over(self, last: int) -> None:
        """Go on after step `last`."""
        self.passed_over += last - self.step
        self.step = last

    def begin_here(self) -> None:
        """Another run begins with this state: its scores, its best and its counts of faults are its own."""
        done = Progress(started=self.step, step=self.step, updates=self.updates, passed_over=self.passed_over)
        self.restore(done)

    def restore(self, stored: Progress) -> None:
        """Copy every field of `stored`."""
        for field_ in fields(self):
            setattr(self, field_.name, deepcopy(getattr(stored, field_.name)))
