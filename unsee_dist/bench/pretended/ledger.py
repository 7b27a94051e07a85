"""What the groups of a pretended world did, and how a refusal is raised."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class Refused(AssertionError):
    """NCCL would have refused this, or it has no place here."""


@dataclass(frozen=True)
class Sent:
    """A collective. bytes: what one rank sends where the ranks form a ring. group: 0 is the first that was made."""

    kind: str
    bytes: int
    group: int


@dataclass
class CollectiveLedger:
    """What all groups of a world did. hot: in the hot path of a step. peers(rank, own object): what another rank gave."""

    sent: list[Sent] = field(default_factory=list)
    objects: Counter[str] = field(default_factory=Counter)
    groups: int = 0
    hot: bool = False  # of the thread that trains
    peers: Callable[[int, Any], Any] = lambda _rank, own: own

    def is_hot(self) -> bool:
        """The thread that writes checkpoints may wait as it likes."""
        return self.hot and threading.current_thread() is threading.main_thread()
