"""From a file and overrides to a RunConfig, or to a list of all mistakes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from unsee_dist.config.layers import Layer, Typed, file_layers, override_layer
from unsee_dist.config.mistakes import ConfigError, Mistake
from unsee_dist.config.objective import OBJECTIVE_SETTINGS
from unsee_dist.config.section import Section
from unsee_dist.config.sections import Conflicts, RunConfig
from unsee_dist.config.spelling import closest, closest_key
from unsee_dist.config.unused import unused
from unsee_dist.errors import UserError
from unsee_dist.masking import masked_urls

CONFIG = "config.yaml"  # in a run's folder: the resolved settings of its first start


def legal_keys() -> tuple[str, ...]:
    """Every key a configuration may have, those of all objectives included, in the tree's order."""
    keys: list[str] = []
    for name, field in RunConfig.model_fields.items():
        if name == "objective":
            own = [key for settings in OBJECTIVE_SETTINGS.values() for key in settings.model_fields]
            keys += dict.fromkeys(f"objective.{key}" for key in own)
        elif isinstance(field.default, BaseModel):
            keys += (f"{name}.{key}" for key in type(field.default).model_fields)
        else:
            keys.append(name)
    return tuple(keys)


Checked = TypeVar("Checked", bound=Section)
LEGAL = legal_keys()
SECTIONS = frozenset(key.split(".")[0] for key in LEGAL if "." in key)


def load(path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration in `path` (a file, or a preset's name) with `section.key=value` overrides on top.

    Raises ConfigError (a UserError) with every mistake of every file and override at once.
    """
    return _load(path, overrides, lambda layer: layer)


def recorded(run: Path) -> RunConfig:
    """The configuration of a run, as its folder has it. Passwords and tokens, which earlier versions wrote, are masked."""
    return _load(str(run / CONFIG), (), _masked)


def _load(path: str, overrides: Sequence[str], read: Callable[[Layer], Layer]) -> RunConfig:
    mistakes: list[Mistake] = []
    first, layers = file_layers(str(path), SECTIONS, mistakes)
    layers.append(override_layer(overrides, mistakes))
    config = resolve(first, [read(layer) for layer in layers], mistakes)
    if mistakes or config is None:
        raise ConfigError(str(path), mistakes)
    return config


def _masked(layer: Layer) -> Layer:
    return {key: Typed(_masked_value(value), where) for key, (value, where) in layer.items()}


def _masked_value(value: object) -> object:
    if isinstance(value, list):
        return [_masked_value(each) for each in value]
    return masked_urls(value) if isinstance(value, str) else value


def checked(section: type[Checked], values: Mapping[str, object]) -> Checked:
    """A section alone, from the flags of a command. Raises UserError with a line for every mistake."""
    with named_as_flags(flags_of(*section.model_fields)):
        return valid(section, values)


def valid(section: type[Checked], values: Mapping[str, object]) -> Checked:
    """A section alone, from values by the names of its settings. Raises UserError with a line for every mistake."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        lines = []
        for detail in details_of(error):
            key = ".".join(map(str, detail["loc"][:1]))
            why, instead = _reason(key, detail, {})
            setting = f"{key} = {values[key]} " if key else ""
            lines.append(f"{setting}{why}" + (f" ({instead})" if instead else ""))
        raise UserError("\n".join(f"{line}." for line in lines)) from error


def flags_of(*settings: str) -> dict[str, str]:
    """The flag of each setting."""
    return {name: f"--{name.replace('_', '-')}" for name in settings}


@contextmanager
def named_as_flags(flags: Mapping[str, str]) -> Iterator[None]:
    """A UserError about a setting (`max_words = 3 ...`) names the flag that the user wrote (`--max-words = 3 ...`)."""
    try:
        yield
    except UserError as error:
        names = "|".join(map(re.escape, flags))
        setting = re.compile(rf"(?<![\w./-])({names})(?= = )")
        raise UserError(setting.sub(lambda match: flags[match[1]], str(error))) from error


def resolve(first: Path, layers: Sequence[Layer], mistakes: list[Mistake]) -> RunConfig | None:
    """The configuration of the layers of file `first`, later layers override earlier ones; mistakes are appended."""
    tree = merge([_known(layer, mistakes) for layer in layers])
    if tree.get("run.name", Typed(None, "")).value is None:
        tree["run.name"] = Typed(first.stem, str(first))
    config, invalid = _validate(tree)
    mistakes += invalid
    if config is not None:
        mistakes += unused(config, layers)
    return config


def merge(layers: Sequence[Layer]) -> Layer:
    """Later layers override earlier ones, and all of them the default objective. A layer that changes objective.name drops the settings of the previous objective:
    they have another meaning even under the same name (two objectives have a `covariance`)."""
    tree: Layer = {"objective.name": Typed(RunConfig().objective.name, "default")}
    for layer in layers:
        name = layer.get("objective.name")
        if name is not None and name.value != tree["objective.name"].value:
            tree = {key: typed for key, typed in tree.items() if not key.startswith("objective.")}
        tree = tree | layer
    return tree


def _known(layer: Layer, mistakes: list[Mistake]) -> Layer:
    """The layer without unknown keys, which become mistakes."""
    for key, (value, where) in layer.items():
        if key in SECTIONS:
            has = ", ".join(other for other in LEGAL if other.startswith(key + "."))
            mistakes.append(Mistake(key, value, where, "is a section, not a setting", f"it has {has}"))
        elif key not in LEGAL:
            mistakes.append(Mistake(key, value, where, "there is no such key", closest_key(key, LEGAL)))
    return {key: typed for key, typed in layer.items() if key in LEGAL}


def _validate(tree: Layer) -> tuple[RunConfig | None, list[Mistake]]:
    """The configuration, or all mistakes in values and conflicts between values."""
    try:
        return RunConfig.model_validate(_nest(tree)), []
    except ValidationError as error:
        mistakes = _mistakes(error, tree)
    # Conflicts are found only when every value is legal: validate again with the illegal ones at their defaults.
    bad = {mistake.key for mistake in mistakes}
    rest = {key: typed for key, typed in tree.items() if key not in bad}
    if bad & {"objective.name"}:
        rest = {key: typed for key, typed in rest.items() if not key.startswith("objective.")}
    try:
        RunConfig.model_validate(_nest(rest))
    except ValidationError as error:
        mistakes += [mistake for mistake in _mistakes(error, rest, bad) if mistake not in mistakes]
    return None, mistakes


def _nest(tree: Layer) -> dict[str, object]:
    top: dict[str, object] = {}
    sections: dict[str, dict[str, object]] = {}
    for key, typed in tree.items():
        section, _, last = key.rpartition(".")
        (sections.setdefault(section, {}) if section else top)[last] = typed.value
    return top | sections


def _mistakes(
    error: ValidationError, tree: Layer, bad: frozenset[str] | set[str] = frozenset()
) -> list[Mistake]:
    """pydantic's errors as mistakes, without conflicts that involve a key of `bad`: it has its own line."""
    by_key: dict[str, Mistake] = {}
    for detail in details_of(error):
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, Conflicts):
            for conflict in cause.conflicts:
                if not bad & {conflict.key, *conflict.others}:
                    both = {conflict.key: Typed(_default(conflict.key), "default")} | tree
                    by_key[conflict.key] = _mistake(conflict.key, both, conflict.why, conflict.instead)
            continue
        key = _key(detail["loc"])
        why, instead = _reason(key, detail, tree)
        before = by_key.get(key)
        if before is not None and before.why != why:  # each member of a union has its own error
            why, instead = f"{before.why}, or {why.removeprefix('must be ')}", before.instead or instead
        by_key[key] = _mistake(key, tree, why, instead)
    return list(by_key.values())


def details_of(error: ValidationError) -> list[ErrorDetails]:
    """pydantic's errors. It takes any ValueError or AssertionError of a validator for one: a bug's is raised."""
    details = error.errors()
    for detail in details:
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, Exception) and not isinstance(cause, UserError):
            raise cause
    return details


def _mistake(key: str, tree: Layer, why: str, instead: str) -> Mistake:
    value, where = tree.get(key, Typed(None, ""))
    return Mistake(key, "null" if value is None and key in tree else value, where, why, instead)


def _default(key: str) -> object:
    """The default of a setting."""
    value: object = RunConfig()
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _default_of(key: str, tree: Layer) -> object:
    """The default of a setting, also of an objective's own."""
    section, _, last = key.rpartition(".")
    chosen = OBJECTIVE_SETTINGS.get(str(tree["objective.name"].value)) if section == "objective" else None
    value = chosen.model_fields[last].default if chosen else _default(key)
    return str(value).lower() if isinstance(value, bool) else value


def _key(loc: tuple[int | str, ...]) -> str:
    """pydantic's location as a key, without the tag of the objective and the member names of a union."""
    if loc[0] == "objective":
        return f"objective.{loc[2]}" if len(loc) > 2 else "objective.name"
    return ".".join(str(part) for part in loc[:2])


def _reason(key: str, detail: ErrorDetails, tree: Layer) -> tuple[str, str]:
    """Why a value is not allowed, and what to write instead."""
    value, context = detail["input"], detail.get("ctx", {})
    if key == "objective.name":
        typed = tree.get(key, Typed(None, "")).value
        return "must be the name of an objective", _choose(str(typed), list(OBJECTIVE_SETTINGS))
    if key in tree and tree[key].value is None and detail["type"] != "extra_forbidden":
        return "cannot be absent", f"write a value, or leave it out for its default, {_default_of(key, tree)}"
    if detail["type"] == "extra_forbidden":
        return _foreign_setting(key, tree)
    if detail["type"] == "literal_error":
        legal = [part.strip(" '") for part in context["expected"].replace(" or ", ",").split(",")]
        return f"must be {' or '.join(legal)}", f"did you mean {meant}?" if (
            meant := closest(str(value), legal)
        ) else ""
    if detail["type"] == "value_error":
        return str(context["error"]), ""
    return plain_reason(detail["type"], detail["msg"]), ""


def _foreign_setting(key: str, tree: Layer) -> tuple[str, str]:
    """The mistake of a setting that belongs to another objective than the chosen one."""
    name, setting = str(tree["objective.name"].value), key.removeprefix("objective.")
    owners = [other for other, settings in OBJECTIVE_SETTINGS.items() if setting in settings.model_fields]
    own = [f"objective.{other}" for other in OBJECTIVE_SETTINGS[name].model_fields if other != "name"]
    why = f"is a setting of {' and '.join(owners)}, and objective.name = {name}"
    return why, f"{name} has {', '.join(own)}" if own else f"{name} has no settings: leave it out"


def _choose(value: str, legal: Sequence[str]) -> str:
    meant = closest(value, legal)
    return (f"did you mean {meant}? " if meant else "") + f"Objectives are {', '.join(legal)}"


def plain_reason(kind: str, message: str) -> str:
    """The words for an error of pydantic, by its type and message: "must be a whole number"."""
    known = {
        "int": "must be a whole number",
        "float": "must be a number",
        "bool": "must be true or false",
        "string_type": "must be text",
        "finite": "must be a finite number",
    }
    for start, words in known.items():
        if kind.startswith(start) and not kind.endswith("short"):
            return words
    if kind == "string_too_short":
        return "must not be empty"
    words = message.replace("Input should be", "must be").replace("greater than or equal to", "at least")
    return words.replace("less than or equal to", "at most")
