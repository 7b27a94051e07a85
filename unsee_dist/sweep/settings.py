"""A sweep file: a run's configuration with two more sections, `sweep:` (how to search) and `space:` (over what).

    extends: ../unsee-vicreg.yaml        # every trial is this run ...
    train: {steps: 500}
    sweep: {metric: dev/sts, trials: 16, ranks: 2}
    space: {train.lr: {loguniform: [1e-5, 3e-4]}}        # ... with these settings varied

Everything is checked before a worker starts, every choice and both ends of every range included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from unsee_dist.config.kinds import flat
from unsee_dist.config.layers import Layer, Typed, file_layers, override_layer, parse_value
from unsee_dist.config.load import LEGAL, SECTIONS, resolve
from unsee_dist.config.mistakes import ConfigError, Mistake
from unsee_dist.config.presets import CONFIGS
from unsee_dist.config.section import PathText, Section
from unsee_dist.config.sections import Cadence, Count, RunConfig, Text, every_steps, secrets
from unsee_dist.config.spelling import closest, closest_key
from unsee_dist.errors import UserError
from unsee_dist.masking import masked
from unsee_dist.metrics.names import ALWAYS, NEEDS, STS, dev
from unsee_dist.sweep.space import OF_A_TRIAL, Axis, Point, Space, overrides, parse


class SweepSettings(Section):
    """The `sweep:` section. A trial runs for `train.steps` at most."""

    name: Text = "sweep"  # absent in a file = the file's name
    dir: PathText = (
        "sweeps/sweep"  # everything the sweep writes; absent = sweeps/<name>. The same command continues it
    )
    metric: Text = dev(STS)  # of an evaluation line
    mode: Literal["max", "min"] = "max"  # whether more of the metric is better, or less
    search: Literal["tpe", "random", "grid"] = "tpe"  # grid: all combinations of choices
    trials: Count | None = None  # absent = 16, or all of a grid
    scheduler: Literal["asha", "median", "none"] = "asha"  # which trials are stopped before their last step
    grace: Cadence = 0.2  # steps, or below 1 a fraction of train.steps, before a trial may be stopped
    reduction: Annotated[int, Field(ge=2)] = 3  # asha: one of so many continues past each rung
    ranks: Count = 1  # processes of a trial
    cpus: Annotated[float, Field(gt=0)] = 1.0  # of a rank
    gpus: Annotated[float, Field(ge=0)] = 0.0  # of a rank
    at_once: Count | None = None  # trials running at the same time; absent = as many as the cluster holds
    hours: Annotated[float, Field(gt=0)] | None = (
        None  # the sweep ends after these; absent = when all trials have
    )
    retries: Annotated[int, Field(ge=0)] = (
        2  # of a trial whose rank or node died; each continues from its checkpoint
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  # of the search

    @model_validator(mode="before")
    @classmethod
    def _dir_follows_name(cls, given: Any) -> Any:
        stated = {key: value for key, value in given.items() if value is not None}
        return {"dir": f"sweeps/{stated.get('name', 'sweep')}"} | stated


INSTEAD = {
    "run.dir": "sweep.dir, the folder of all",
    "run.name": "sweep.name",
    "resume": "unsee sweep --resume DIR, or leave it out",
}  # of what a sweep decides itself
OWN = tuple(f"sweep.{name}" for name in SweepSettings.model_fields)


@dataclass(frozen=True)
class Sweep:
    """A checked sweep. `base` is the run that every trial varies; `layers` are what it was read from."""

    settings: SweepSettings
    base: RunConfig
    space: Space
    first: Path
    layers: tuple[Layer, ...]

    @property
    def folder(self) -> Path:
        return Path(self.settings.dir)

    @property
    def steps(self) -> int:
        assert self.base.train.steps is not None
        return self.base.train.steps

    @property
    def trials(self) -> int:
        if self.settings.search == "grid":
            points = len(self.space.grid())
            return min(points, self.settings.trials or points)
        return self.settings.trials or 16

    def config(self, point: Point, *more: str) -> RunConfig:
        """The run of a point. ConfigError: cannot be (points of a checked space can)."""
        mistakes: list[Mistake] = []
        config = _run_of(self.first, self.layers, [*overrides(point), *more], mistakes)
        if config is None or mistakes:
            raise ConfigError(str(self.first), mistakes)
        return config

    def within(self, name: str) -> Sweep:
        """The same sweep in a folder of its own inside this one's."""
        inside = {"dir": str(self.folder / name), "name": f"{self.settings.name}-{name}"}
        return replace(self, settings=self.settings.model_copy(update=inside))

    def as_yaml(self) -> str:
        """What a sweep folder keeps, to be the same sweep again: the run's resolved settings and the two sections."""
        axes = {
            axis.key: {axis.kind: list(axis.values)} | ({"when": _plain(axis.when)} if axis.when else {})
            for axis in self.space.axes
        }
        tree = self.base.model_dump(mode="json")
        for key in OF_A_TRIAL:
            section, _, last = key.rpartition(".")
            (tree[section] if section else tree).pop(last)
        tree |= {"sweep": self.settings.model_dump(mode="json"), "space": axes}
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


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
    base = _run_of(first, run_layers, (), mistakes)
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
        for detail in error.errors():
            key = str(detail["loc"][0]) if detail["loc"] else "name"
            typed = tree.get(key, Typed(None, ""))
            why = str(
                detail.get("ctx", {}).get("error") or detail["msg"].replace("Input should be", "must be")
            )
            mistakes.append(Mistake(f"sweep.{key}", typed.value, typed.where, why, ""))
        return None


def _run_of(
    first: Path, layers: Sequence[Layer], given: Sequence[str], mistakes: list[Mistake]
) -> RunConfig | None:
    return resolve(first, [*layers, override_layer(given, mistakes)], mistakes)


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
            f"when {_plain(axis.when)}",
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
        config = _run_of(first, layers, overrides(point), mistakes)
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


def _plain(when: Any) -> dict[str, list[str]]:
    return {key: list(legal) for key, legal in when.items()}
