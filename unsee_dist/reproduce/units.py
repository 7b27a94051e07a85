"""A unit: an arm under a seed, which is one run. Its settings in order, its folder, and whether it is there already.

    preset < the plan's settings < the user's < the arm's own < run.dir, run.name, seed

Everything about a unit is in its run's folder, so that the same command continues after a kill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unsee_dist.config import RunConfig, load
from unsee_dist.config.kinds import Kind, differences, flat, kind_of, legible
from unsee_dist.config.unused import UNUSED, under
from unsee_dist.errors import UserError
from unsee_dist.report.run_files import is_run, open_run
from unsee_dist.reproduce.experiment import Arm, Experiment, Plan, key

RUNS, LOGS = "runs", "logs"
OURS = ("run.dir", "run.name", "seed", "resume")  # each unit has its own


@dataclass(frozen=True)
class Unit:
    """overrides: of the preset. trainer, timed_by: of a peer, and the run whose training it may take as long as."""

    arm: str
    seed: int
    preset: str
    overrides: tuple[str, ...]
    folder: Path
    log: Path
    trainer: str = ""
    timed_by: Path | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def config(self) -> RunConfig:
        return load(self.preset, self.overrides)

    @property
    def command(self) -> list[str]:
        """What trains it, as written after `python -m`."""
        if self.trainer:
            return [
                "unsee_dist.reproduce.train_peer",
                self.trainer,
                str(self.timed_by),
                self.preset,
                *self.overrides,
            ]
        return ["unsee_dist.train", "--config", self.preset, *self.overrides]

    @property
    def complete(self) -> bool:
        return is_run(self.folder) and open_run(self.folder).state == "complete"


def units_of(
    experiment: Experiment, plan: Plan, overrides: Sequence[str], seeds: int, out: Path
) -> list[Unit]:
    """Seed by seed, so that a stopped experiment has whole comparisons. ConfigError, UserError: a setting is wrong."""
    for text in overrides:
        _check_not_ours(experiment, plan, key(text))
    return [_unit(plan, arm, seed, overrides, out) for seed in range(seeds) for arm in plan.arms]


def _check_not_ours(experiment: Experiment, plan: Plan, setting: str) -> None:
    if setting in OURS:
        raise UserError(
            f"{setting} is each run's own here. Leave it out: --out DIR says where the runs are, --seeds N how many."
        )
    if setting in plan.varied:
        raise UserError(f"{setting} is what {experiment.name} varies. Leave it out.")


def _unit(plan: Plan, arm: Arm, seed: int, overrides: Sequence[str], out: Path) -> Unit:
    name = f"{arm.name}-{seed}"
    own = [f"run.dir={out / RUNS / name}", f"run.name={name}", f"seed={seed}"]
    own += [f"model.encoder={arm.encoder}"] if arm.encoder else []
    shared = [text for text in under(overrides, plan.settings) if key(text) not in _meaningless(arm)]
    settings = _last_of_each([*under(arm.settings, shared), *own])
    timed_by = out / RUNS / f"{arm.as_long_as}-{seed}" if arm.as_long_as else None
    folder, log = out / RUNS / name, out / LOGS / f"{name}.log"
    unit = Unit(arm.name, seed, arm.preset, settings, folder, log, arm.trainer, timed_by)
    _check_same(unit)
    return unit


def _last_of_each(settings: Sequence[str]) -> tuple[str, ...]:
    return tuple({key(text): text for text in settings}.values())


def _meaningless(arm: Arm) -> set[str]:
    """The settings that this arm has no use for: projector.width=4 says nothing of a SimCSE."""
    config = load(arm.preset, arm.settings)
    return {setting for rule in UNUSED if rule.holds(config) for setting in rule.keys}


def _check_same(unit: Unit) -> None:
    """UserError: the unit's folder has a run of other settings, whose scores would be taken for this one's."""
    if not is_run(unit.folder):
        unit.config  # noqa: B018  # every mistake is found before the first run begins
        return
    there, here = open_run(unit.folder).settings, flat(unit.config)
    for setting, before, now in differences(there, here):
        if not setting.startswith("run.") and kind_of(setting) is not Kind.CHANGE:
            raise UserError(
                f"{unit.folder} is a run with {setting} = {legible(before)}, and here it is {legible(now)}. Write another --out."
            )
