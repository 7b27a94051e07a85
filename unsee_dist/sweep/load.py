"""From a sweep file and overrides to a Sweep, or to a list of all mistakes.

Everything is checked before a worker starts, every choice and both ends of every range included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from unsee_dist.config.kinds import flat
from unsee_dist.config.layers import Layer, Typed, file_layers, override_layer, parse_value
from unsee_dist.config.load import LEGAL, SECTIONS, details_of, plain_reason
from unsee_dist.config.mistakes import ConfigError, Mistake
from unsee_dist.config.presets import CONFIGS
from unsee_dist.config.sections import RunConfig, every_steps, secrets
from unsee_dist.config.spelling import closest, closest_key
from unsee_dist.errors import UserError
from unsee_dist.masking import masked
from unsee_dist.metrics.names import ALWAYS, NEEDS
from unsee_dist.sweep.settings import OWN, Sweep, SweepSettings, conditions, run_of
from unsee_dist.sweep.space import OF_A_TRIAL, Axis, Space, overrides, parse

INSTEAD = {
    "run.dir": "sweep.dir, the folder of all",
    "run.name": "sweep.name",
    "resume": "unsee sweep --resume DIR, or leave it out",
}  # of what a sweep decides itself


def load_sweep(path: str, given: Sequence[str] = ()) -> Sweep:
    """The sweep in `path` (a file, or a name in configs/sweeps) with `section.key=value` overrides on top.

    Raises ConfigError with every mistake at once: of the file, of the space, and of the runs it would make.
    """
    mistakes: list[Mistake] = []
    first, layers = file_layers(_sweep_file(path), SECTIONS | {"sweep", "space"}, mistakes)
    layers.append(override_layer(given, mistakes))
    settings = _settings([_of("sweep", layer) for layer in layers], first, mistakes)
    mistakes += _not_used(layers, settings)
    varied = {key: typed for layer in layers for key, typed in _of("space", layer).items()}
    values = {
        key: parse_value(typed.value) if isinstance(typed.value, str) else typed.value
        for key, typed in varied.items()
    }
    axes = parse(
        {key: Typed(values[key], typed.where) for key, typed in varied.items() if values[key] is not None},
        mistakes,
    )
    run_layers = tuple(
        {key: typed for key, typed in layer.items() if not key.startswith(("sweep.", "space."))}
        for layer in layers
    )
    for layer in run_layers:  # swep.dir is near to a key of the sweep
        for key in [key for key in layer if key not in LEGAL and key.partition(".")[0] not in SECTIONS]:
            mistakes.append(
                Mistake(key, *layer.pop(key), "there is no such key", closest_key(key, (*LEGAL, *OWN)))
            )
    base = run_of(first, run_layers, (), mistakes)
    if settings is not None and base is not None:
        space = Space(axes, {key: str(value) for key, value in flat(base).items()})
        _check(settings, base, space, layers[-1], mistakes)
        mistakes += [
            wrong for wrong in _of_corners(first, run_layers, space, settings.ranks) if wrong not in mistakes
        ]
    if mistakes or settings is None or base is None:
        raise ConfigError(path, mistakes)
    return Sweep(settings, base, space, first, run_layers)


def _sweep_file(path: str) -> str:
    """`tiny` is configs/sweeps/tiny.yaml. UserError with the closest sweep: there is none of that name."""
    known = {
        file.stem: file
        for folder in (CONFIGS / "sweeps", Path("configs/sweeps"))
        for file in folder.glob("*.yaml")
    }
    if Path(path).exists() or Path(f"{path}.yaml").is_file():
        return path
    if path in known:
        return str(known[path])
    meant = closest(Path(path).stem, known)
    hint = f"did you mean {meant}?" if meant else f"sweeps are {', '.join(sorted(known))}"
    raise UserError(f"{path}: there is no such file, and no sweep of this name; {hint}")


def _of(section: str, layer: Layer) -> Layer:
    return {
        key.removeprefix(f"{section}."): typed
        for key, typed in layer.items()
        if key.startswith(f"{section}.")
    }


def _settings(layers: Sequence[Layer], first: Path, mistakes: list[Mistake]) -> SweepSettings | None:
    tree: Layer = {"name": Typed(first.stem, str(first))}
    for layer in layers:
        for key, typed in layer.items():
            if f"sweep.{key}" not in OWN:
                why, meant = "there is no such key", closest_key(f"sweep.{key}", OWN)
                mistakes.append(Mistake(f"sweep.{key}", typed.value, typed.where, why, meant))
            else:
                tree[key] = typed
    try:
        return SweepSettings.model_validate({key: typed.value for key, typed in tree.items()})
    except ValidationError as error:
        for detail in details_of(error):
            key = str(detail["loc"][0]) if detail["loc"] else "name"
            typed = tree.get(key, Typed(None, ""))
            why = str(detail.get("ctx", {}).get("error") or plain_reason(detail["type"], detail["msg"]))
            mistakes.append(Mistake(f"sweep.{key}", typed.value, typed.where, why, ""))
        return None


def _check(
    settings: SweepSettings, base: RunConfig, space: Space, typed: Layer, mistakes: list[Mistake]
) -> None:
    """Mistakes between the settings of two sections. typed: on the command line."""

    def wrong(key: str, value: object, why: str, instead: str) -> None:
        mistakes.append(Mistake(key, value, "", why, instead))

    varied = {axis.key for axis in space.axes}
    for axis in space.axes:
        if axis.key in typed and not axis.when:
            why, instead = "is not used: space varies it", f"leave it out, or write space.{axis.key}=null"
            mistakes.append(Mistake(axis.key, *typed[axis.key], why, instead))
    for each in secrets({"sweep": settings.model_dump()}):
        wrong(each.key, getattr(settings, each.key.removeprefix("sweep.")), each.why, each.instead)
    if re.match(r"[\w+.-]+://", settings.dir):
        why, instead = "is a URL, and a sweep needs a folder", "write a folder that all nodes see"
        wrong("sweep.dir", masked(settings.dir), why, instead)
    if base.train.steps is None or "train.steps" in varied:
        why = "must be one number in a sweep: trials are compared after the same number of steps"
        wrong("train.steps", base.train.steps, why, "write train.steps: 500, and nothing of it in space")
        return
    never = space.unreachable()
    for axis in never:
        wrong(
            f"space.{axis.key}",
            f"when {conditions(axis.when)}",
            "has a condition that never holds",
            space.why_never(axis),
        )
    for axis in (axis for axis in space.axes if axis not in never):
        for key, value in space.never_met(axis):
            wrong(f"space.{axis.key}", f"when {key}: {value}", "is never met", space.why_never(axis))
    needed = NEEDS.get(settings.metric)
    if settings.metric not in (*NEEDS, *ALWAYS):
        names = [*NEEDS, *ALWAYS]
        instead = f"write {closest(settings.metric, names) or ', '.join(names)}"
        wrong("sweep.metric", settings.metric, "is in no evaluation", instead)
    elif needed and not flat(base)[needed]:
        wrong("sweep.metric", settings.metric, f"never appears: {needed} is absent", f"write {needed}")
    ranges = [axis.key for axis in space.axes if axis.kind != "choice"]
    if settings.search == "grid" and ranges:
        why = f"cannot enumerate the ranges of {', '.join(ranges)}"
        wrong("sweep.search", "grid", why, "write choices, or sweep.search: tpe")
    elif settings.search == "grid":
        try:
            points = len(space.grid())
            if settings.trials is not None and settings.trials > points:
                why = f"is more than the {points} points of the grid"
                wrong("sweep.trials", settings.trials, why, "leave it out: all points are tried")
        except UserError as error:  # beside the file's other mistakes
            mistakes.append(Mistake(str(error), None, "", "", ""))
    if every_steps(settings.grace, base.train.steps) >= base.train.steps and settings.scheduler != "none":
        why = f"leaves nothing of train.steps = {base.train.steps} to stop"
        wrong("sweep.grace", settings.grace, why, "write less, or sweep.scheduler: none")


def _not_used(layers: Sequence[Layer], settings: SweepSettings | None) -> list[Mistake]:
    """Settings that are written in the sweep file itself or on the command line, and would have no effect."""
    mistakes, given = [], layers[-1]
    for layer in layers[-2:]:
        for key in (key for key in OF_A_TRIAL if key in layer and layer[key].value is not None):
            why = "is decided by the sweep: each trial has its own"
            mistakes.append(Mistake(key, *layer[key], why, f"write {INSTEAD[key]}"))
    if settings is None:
        return mistakes
    scheduler, by = settings.scheduler, f"sweep.scheduler = {settings.scheduler}"
    for key, unused, decides in (
        ("sweep.reduction", scheduler != "asha", by),
        ("sweep.grace", scheduler == "none", by),
        ("sweep.seed", settings.search == "grid", "sweep.search = grid"),
    ):
        # A file with every key of the section is the record of a sweep.
        written = [given, *(layer for layer in layers[-2:-1] if not layer.keys() >= set(OWN))]
        for layer in (
            layer for layer in written if unused and layer.get(key, Typed(None, "")).value is not None
        ):
            mistakes.append(Mistake(key, *layer[key], f"is not used with {decides}", "leave it out"))
    return mistakes


def _of_corners(first: Path, layers: Sequence[Layer], space: Space, ranks: int) -> list[Mistake]:
    """What is wrong with the runs at the corners of the space; each mistake once, at the place of its axis."""
    places: dict[str, Axis] = {axis.key: axis for axis in space.axes}
    distinct: dict[tuple[str, str], Mistake] = {}
    for point in space.corners():
        mistakes: list[Mistake] = []
        config = run_of(first, layers, overrides(point), mistakes)
        if config is not None and config.train.batch % ranks:
            why = f"cannot be split over sweep.ranks = {ranks}"
            mistakes.append(
                Mistake("train.batch", config.train.batch, "", why, f"write multiples of {ranks}")
            )
        for mistake in mistakes:
            if mistake.key in places:
                mistake = mistake._replace(key=f"space.{mistake.key}", where=places[mistake.key].where)
            distinct.setdefault((mistake.key, str(mistake.value)), mistake)
    return list(distinct.values())
