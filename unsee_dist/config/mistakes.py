"""Mistakes in a configuration: each a line with key, value, place, reason and remedy; raised together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
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
        self.mistakes = tuple(mistakes)
        count = "1 mistake" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {mistake}" for mistake in self.mistakes)]))


def closest(word: str, legal: Iterable[str]) -> str | None:
    """The legal word that was probably meant, or None."""
    matches = get_close_matches(word, list(legal), n=1, cutoff=0.6)
    return matches[0] if matches else None


def closest_key(key: str, legal: Sequence[str]) -> str:
    """What to write instead of an unknown key: the key that was probably meant, or the existing ones."""
    section, _, last = key.rpartition(".")
    siblings = {_last(other): other for other in legal if section and other.startswith(section + ".")}
    words = {_last(other): other for other in reversed(legal)}  # the first section that has the word
    if meant := closest(last, siblings):
        return f"did you mean {siblings[meant]}?"
    if last in words:
        return f"did you mean {words[last]}?"
    if siblings:
        return f"{section} has {', '.join(siblings)}"
    sections = list(dict.fromkeys(other.split(".")[0] for other in legal))
    if not section and (meant := closest(key, sections)):
        return f"did you mean the section {meant}?"
    if meant := closest(last, words):
        return f"did you mean {words[meant]}?"
    return f"sections are {', '.join(sections)}"


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _short(value: object) -> str:
    text = masked(str(value))  # before it is cut: half a URL hides its password from the mask
    return text if len(text) <= 60 else text[:57] + "..."
