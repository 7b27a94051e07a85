"""Mistakes in a configuration: each a line with key, value, place, reason and remedy; raised together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from unsee_dist.errors import UserError
from unsee_dist.masking import masked


class Mistake(NamedTuple):
    """One thing to correct. `key` is the full key, or the file for what concerns a whole file."""

    key: str
    value: object  # as typed; None = nothing to show or null
    where: str  # "configs/mine.yaml:12" or "command line"
    why: str
    instead: str

    def __str__(self) -> str:
        setting = self.key if self.value is None else f"{self.key} = {_short(self.value)}"
        return " — ".join(part for part in (setting, self.where, self.why, self.instead) if part)


class ConfigError(UserError):
    """An invalid configuration. `mistakes` has all of its mistakes."""

    def __init__(self, source: str, mistakes: Sequence[Mistake]) -> None:
        self.source, self.mistakes = source, tuple(mistakes)
        count = "1 mistake" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {mistake}" for mistake in self.mistakes)]))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, tuple[Mistake, ...]]]:
        return type(self), (self.source, self.mistakes)  # a process or a Ray task sends it


def _short(value: object) -> str:
    text = masked(str(value))  # before it is cut: half a URL hides its password from the mask
    return text if len(text) <= 60 else text[:57] + "..."
