"""A sweep file: a run's configuration with two more sections, `sweep:` (how to search) and `space:` (over what).

extends: ../unsee-vicreg.yaml        # every trial is this run ...
train: {steps: 500}
sweep: {metric: dev/sts, trials: 16, ranks: 2}
space: {train.lr: {loguniform: [1e-5, 3e-4]}}        # ... with these settings varied
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from unsee_dist.config.layers import Layer, override_layer
from unsee_dist.config.load import resolve
from unsee_dist.config.mistakes import ConfigError, Mistake
from unsee_dist.config.section import PathText, Section
from unsee_dist.config.sections import Cadence, Count, RunConfig, Text
from unsee_dist.metrics.names import STS, dev
from unsee_dist.sweep.space import OF_A_TRIAL, Point, Space, overrides


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
        config = run_of(self.first, self.layers, [*overrides(point), *more], mistakes)
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
            axis.key: {axis.kind: list(axis.values)} | ({"when": conditions(axis.when)} if axis.when else {})
            for axis in self.space.axes
        }
        tree = self.base.model_dump(mode="json")
        for key in OF_A_TRIAL:
            section, _, last = key.rpartition(".")
            (tree[section] if section else tree).pop(last)
        tree |= {"sweep": self.settings.model_dump(mode="json"), "space": axes}
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def run_of(
    first: Path, layers: Sequence[Layer], given: Sequence[str], mistakes: list[Mistake]
) -> RunConfig | None:
    return resolve(first, [*layers, override_layer(given, mistakes)], mistakes)


def conditions(when: Any) -> dict[str, list[str]]:
    return {key: list(legal) for key, legal in when.items()}
