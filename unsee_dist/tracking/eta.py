"""When a run ends: the steps, evaluations and saves that are left, each as long as those so far."""

from __future__ import annotations

from typing import Literal

Kind = Literal["step", "evaluation", "save"]
# Weight of the newest measurement, once there are so many that their mean has less: steps differ little and are many.
NEWEST = {"step": 0.02, "evaluation": 0.3, "save": 0.3}


class Eta:
    """Of a run of `steps` steps, evaluated and saved every so many, and at its end.

    The first step of a start also fills caches: it counts only until there is a second one.
    """

    def __init__(self, steps: int, evaluate_every: int | None = None, save_every: int | None = None) -> None:
        self.steps = steps
        self._every: dict[Kind, int | None] = {"evaluation": evaluate_every, "save": save_every}
        self._mean_s: dict[Kind, float] = {}
        self._measured: dict[Kind, int] = {}

    def took(self, kind: Kind, seconds: float) -> None:
        """One more of these took so long."""
        number = self._measured[kind] = self._measured.get(kind, 0) + 1
        if kind == "step":
            number = max(1, number - 1)
        mean_s = self._mean_s.get(kind, 0.0)
        self._mean_s[kind] = mean_s + max(NEWEST[kind], 1 / number) * (seconds - mean_s)

    def seconds(self, step: int) -> float:
        """From the end of a step, before it is evaluated and saved, to the end of the run."""
        left = self._mean_s.get("step", 0.0) * (self.steps - step)
        for kind, every in self._every.items():
            if every is not None and kind in self._mean_s:
                left += self._mean_s[kind] * pauses(step, self.steps, every)
        return left


def pauses(step: int, steps: int, every: int) -> int:
    """How many of the steps from `step` to the last, both counted, are multiples of `every` or the last."""
    multiples = steps // every - (step - 1) // every if step > 0 else steps // every
    return multiples + (steps % every != 0)
