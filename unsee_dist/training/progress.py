"""Where a run is: what the loop counts, and what a checkpoint brings back.

Saved and restored by their fields, all of them: a new field cannot be saved and forgotten.
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
    """`step` counts batches read, `updates` those applied; the difference was skipped."""

    step: int = 0
    updates: int = 0
    evaluated: int = -1  # the step of the last evaluation
    best: Best | None = None
    before: dict[str, float] = field(default_factory=dict)  # scores of the untrained encoder
    guard: GuardState = field(default_factory=GuardState)

    @property
    def skipped(self) -> int:
        return self.step - self.updates

    def restore(self, stored: Progress) -> None:
        """Take every field of `stored`."""
        for each in fields(self):
            setattr(self, each.name, deepcopy(getattr(stored, each.name)))
