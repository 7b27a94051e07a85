"""fp16's loss scale: small gradients are 0 in fp16, so the loss is multiplied before the backward, the gradients divided after.

As large as the gradients allow: halved when they overflow (that step is skipped), doubled after WINDOW steps without.
Micikevicius et al. 2018, arXiv:1710.03740, section 3.2. Its state is part of a checkpoint: a resumed run is the same run.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST, LOWEST, HIGHEST = 2.0**16, 1.0, 2.0**24
WINDOW = 1000  # applied steps


@dataclass
class LossScale:
    """`value` multiplies the loss. steady: applied steps since the value last changed."""

    value: float = FIRST
    steady: int = 0

    def lower(self) -> bool:
        """After an overflow. False: the value is the lowest already, so the gradients are not finite for another reason."""
        self.steady = 0
        if self.value <= LOWEST:
            return False
        self.value /= 2
        return True

    def raise_when_steady(self) -> None:
        """After an applied step."""
        self.steady += 1
        if self.steady >= WINDOW:
            self.value, self.steady = min(self.value * 2, HIGHEST), 0
