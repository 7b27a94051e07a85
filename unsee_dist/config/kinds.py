"""What another start of a run may do to its settings: every setting is one of these kinds, here and nowhere else.

    RESULT    part of the result: with another value it would be another run, so it is refused
    CONTENT   names files: their contents are part of the result, their place may change
    CHANGE    how the run works, not what comes out of it: printed, and kept in the run's history
    GROW      the length of the run: it may get more steps, and the console says which schedule follows; never fewer

A checkpoint that another run starts from (`resume=PATH`) carries tensors and a place in the corpus: CARRIED, which that
run must share with it. Its other settings are its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from unsee_dist.config.sections import RunConfig

LONGEST = 200  # letters of a value in a message
Plain = str | int | float | bool | list[str] | None


class Kind(Enum):
    RESULT = "part of the result"
    CONTENT = "the content of what it names is part of the result"
    CHANGE = "may change"
    GROW = "may grow"


# By key, else by section.
KINDS = {
    "seed": Kind.RESULT,
    "resume": Kind.CHANGE,
    "run": Kind.CHANGE,
    "model": Kind.RESULT,
    "model.encoder": Kind.CONTENT,
    "projector": Kind.RESULT,
    "target": Kind.RESULT,
    "objective": Kind.RESULT,
    "data": Kind.CHANGE,
    "data.shards": Kind.CONTENT,
    "data.mix": Kind.CONTENT,
    "data.views": Kind.RESULT,
    "data.crop_tokens": Kind.RESULT,
    "data.crop_distance": Kind.RESULT,
    "train": Kind.RESULT,
    "train.micro_batch": Kind.CHANGE,
    "train.steps": Kind.GROW,
    "train.epochs": Kind.GROW,
    "parallel": Kind.CHANGE,
    "evaluate.every": Kind.CHANGE,
    "evaluate.patience": Kind.CHANGE,  # no step is another for it, it only decides which is the last
    "evaluate.sts": Kind.CONTENT,
    "evaluate.retrieval": Kind.CONTENT,
    "checkpoint": Kind.CHANGE,
    "guard": Kind.CHANGE,
    "track": Kind.CHANGE,
}
CARRIED = (
    "seed",
    "train.batch",
    "projector",
    "target.kind",
    "objective.name",
    "model.encoder",
    "tokenizer",
    "data.shards",
    "order",
)


# Settings that are newer than checkpoints which are still read, and what all runs did before there were these.
BEFORE: dict[str, Plain] = {"data.views": "dropout", "data.crop_tokens": 16}


class SettingDifference(NamedTuple):
    """A setting by its key, as it is in a run's folder and as it was given now."""

    key: str
    there: object
    here: object

    def __str__(self) -> str:
        return f"{legible(self.key)} {legible(self.there)} -> {legible(self.here)}"


def kind_of(key: str) -> Kind:
    """The kind of a setting. KeyError: a new one, which has to be declared in KINDS."""
    return KINDS[key] if key in KINDS else KINDS[key.partition(".")[0]]


def is_carried(key: str) -> bool:
    """Whether a run that starts from another's checkpoint must share this setting with it."""
    return key in CARRIED or key.partition(".")[0] in CARRIED


def flat(config: RunConfig) -> dict[str, Plain]:
    """Every setting by its key, as plain values."""
    settings: dict[str, Plain] = {}
    for name, value in config.model_dump(mode="json").items():
        settings |= (
            {f"{name}.{key}": each for key, each in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
    return settings


def of_kind(settings: Mapping[str, Plain], *kinds: Kind) -> dict[str, Plain]:
    """The settings of some kinds."""
    return {key: value for key, value in settings.items() if kind_of(key) in kinds}


def differences(there: Mapping[str, object], here: Mapping[str, object]) -> list[SettingDifference]:
    """The settings that differ. Of another objective, its name alone: its settings are others, too."""
    keys = dict.fromkeys([*there, *here])
    if there.get("objective.name") != here.get("objective.name"):
        keys = {key: None for key in keys if not key.startswith("objective.") or key == "objective.name"}
    pairs = ((key, there.get(key, BEFORE.get(key)), here.get(key, BEFORE.get(key))) for key in keys)
    return [SettingDifference(*pair) for pair in pairs if pair[1] != pair[2]]


def table(different: Iterable[SettingDifference]) -> str:
    """Lines of three columns: the setting, there, here."""
    rows = [("setting", "there", "here")]
    for each in different:
        there, here = legible(each.there), legible(each.here)
        if there == here:  # of two types: 1 and "1"
            there, here = repr(each.there)[:LONGEST], repr(each.here)[:LONGEST]
        rows.append((legible(each.key), there, here))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"  {key:{widths[0]}}  {there:{widths[1]}}  {here}" for key, there, here in rows)


def shown(value: object) -> str:
    """A value as a person would type it; "absent" for none."""
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return "absent" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def legible(value: object) -> str:
    """`shown` on one line of a message, whoever wrote the value: what is not printable is escaped, and of a long one the middle
    is left out."""
    text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in shown(value))
    half = (LONGEST - 3) // 2
    return text if len(text) <= LONGEST else f"{text[:half]}...{text[-half:]}"
