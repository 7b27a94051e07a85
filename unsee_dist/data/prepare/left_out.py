"""Left out: the files and folders of the inputs that were not read, by reason."""

from __future__ import annotations

from unsee_dist.data.prepare.formats import printable

NAMED = 100  # paths kept of each reason: a folder may hold a million images


class LeftOut:
    """What was left out: as {reason: {"files": number, "first": [paths]}}."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._first: dict[str, list[str]] = {}

    def add(self, path: str, why: str) -> None:
        self._numbers[why] = self._numbers.get(why, 0) + 1
        first = self._first.setdefault(why, [])
        if len(first) < NAMED:
            first.append(printable(path))

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            why: {"files": number, "first": self._first[why]} for why, number in sorted(self._numbers.items())
        }
