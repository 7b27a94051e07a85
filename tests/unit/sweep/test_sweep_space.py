"""A space is enumerated, sampled and checked under its conditions; every mistake of a sweep file is named at once."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from unsee_dist.config import ConfigError
from unsee_dist.sweep.settings import load_sweep

BASE = "extends: base.yaml\ntrain: {steps: 100}\nevaluate: {sts: x.tsv}\n"
CONDITIONAL = """space:
  objective.covariance: {loguniform: [0.1, 10], when: {objective.name: vicreg}}
  objective.name: {choice: [vicreg, byol, simcse]}
  objective.temperature: {choice: [0.05, 0.1], when: {objective.name: simcse}}
  train.lr: {loguniform: [1e-5, 1e-3]}
  projector.blocks: {integer: [1, 3]}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(BASE + text, encoding="utf-8")
    return str(path)


def mistakes(path: str, *given: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load_sweep(path, given)
    return {mistake.key: str(mistake) for mistake in caught.value.mistakes}


def test_conditions_come_before_those_that_ask_and_decide_what_a_trial_has(tmp_path: Path) -> None:
    space = load_sweep(write(tmp_path, CONDITIONAL)).space
    keys = [axis.key for axis in space.axes]
    assert keys.index("objective.name") < keys.index("objective.covariance")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(40):
        trial = study.ask()
        space.suggest(trial)
        name = trial.params["objective.name"]
        seen.add(name)
        assert ("objective.covariance" in trial.params) == (name == "vicreg")
        assert ("objective.temperature" in trial.params) == (name == "simcse")
        assert 1e-5 <= trial.params["train.lr"] <= 1e-3
        assert trial.params["projector.blocks"] in (1, 2, 3)
    assert seen == {"vicreg", "byol", "simcse"}


def test_a_grid_holds_every_combination_once(tmp_path: Path) -> None:
    text = """sweep: {search: grid}
space:
  objective.name: {choice: [vicreg, simcse]}
  objective.temperature: {choice: [0.05, 0.1], when: {objective.name: simcse}}
  train.batch: {choice: [16, 32]}
"""
    sweep = load_sweep(write(tmp_path, text))
    grid = sweep.space.grid()
    assert len(grid) == sweep.trials == 2 + 2 * 2
    assert len({tuple(sorted(point.items())) for point in grid}) == len(grid)
    temperatures = sorted(point.get("objective.temperature", "none") for point in grid)
    assert temperatures == ["0.05", "0.05", "0.1", "0.1", "none", "none"]


def test_a_point_becomes_the_run_that_unsee_train_would_make(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path, CONDITIONAL), ["train.batch=64"])
    config = sweep.config({"objective.name": "simcse", "objective.temperature": "0.1", "train.lr": 3e-4})
    assert config.objective.model_dump() == {"name": "simcse", "temperature": 0.1}
    assert (config.train.lr, config.train.batch, config.train.steps) == (3e-4, 64, 100)


def test_the_kept_sweep_is_the_same_sweep(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path, CONDITIONAL), ["sweep.trials=7", "sweep.dir=else/where"])
    kept = tmp_path / "sweep.yaml"
    kept.write_text(sweep.as_yaml(), encoding="utf-8")
    again = load_sweep(str(kept))
    assert again.as_yaml() == sweep.as_yaml()
    assert (again.settings, again.space.axes[0].values) == (sweep.settings, sweep.space.axes[0].values)


def test_the_command_line_adds_replaces_and_removes_axes(tmp_path: Path) -> None:
    given = [
        "space.train.lr={choice: [1e-4, 2e-4]}",
        "space.seed={choice: [0, 1]}",
        "space.projector.blocks=",
    ]
    axes = {axis.key: axis for axis in load_sweep(write(tmp_path, CONDITIONAL), given).space.axes}
    assert axes["train.lr"].values == ("1e-4", "2e-4")
    assert axes["seed"].values == ("0", "1")
    assert "projector.blocks" not in axes
    assert "must say how" in mistakes(write(tmp_path, CONDITIONAL), "space.train.lr=3")["space.train.lr"]


def test_every_mistake_is_named_at_once_before_anything_starts(tmp_path: Path) -> None:
    text = """sweep: {metric: dev/stss, search: grid, grace: 200, trails: 3}
space:
  train.lr: {logunifrom: [1, 2]}
  train.warmup: {uniform: [0, 2]}
  objective.temperature: {uniform: [0.01, 1]}
  projector.depth: {choice: [1, 2]}
  train.batch: {choice: [-4, 2]}
  train.clip: 3
  run.dir: {choice: [a]}
  train.weight_decay: {uniform: [1, 1]}
"""
    found = mistakes(write(tmp_path, text))
    expected = {
        "sweep.trails": "did you mean sweep.trials?",
        "sweep.metric": "write dev/sts",
        "sweep.search": "cannot enumerate the ranges",
        "sweep.grace": "leaves nothing of train.steps = 100",
        "space.train.lr": "did you mean loguniform?",
        "space.train.warmup": "at most 1",
        "space.objective.temperature": "setting of simcse",
        "space.projector.depth": "no such key",
        "space.train.batch": "at least 2",
        "space.train.clip": "must say how it varies",
        "space.run.dir": "decided by the sweep",
        "space.train.weight_decay": "empty range",
    }
    assert found.keys() == expected.keys()
    assert all(words in found[key] for key, words in expected.items()), found


@pytest.mark.parametrize(
    ("given", "key", "words"),
    [
        (["evaluate.sts="], "sweep.metric", "never appears: evaluate.sts is absent"),
        (["sweep.ranks=3"], "train.batch", "cannot be split over sweep.ranks = 3"),
        (["train.steps="], "train.steps", "one number in a sweep"),
        (["sweep.mode=maximum"], "sweep.mode", "'max' or 'min'"),
        (["trian.lr=3"], "trian.lr", "train"),
    ],
)
def test_mistakes_of_the_command_line(tmp_path: Path, given: list[str], key: str, words: str) -> None:
    assert words in mistakes(write(tmp_path, "space: {train.lr: {loguniform: [1e-5, 1e-3]}}\n"), *given)[key]


def test_an_empty_space_and_a_circle_are_refused(tmp_path: Path) -> None:
    assert "is empty" in mistakes(write(tmp_path, ""))["space"]
    circle = """space:
  train.batch: {choice: [16], when: {train.lr: 1}}
  train.lr: {choice: [1], when: {train.batch: 16}}
"""
    assert "ask for each other" in mistakes(write(tmp_path, circle))["space"]


def test_the_presets_are_right_once_the_data_is_named() -> None:
    names = sorted(path.stem for path in (Path(__file__).parents[3] / "configs" / "sweeps").glob("*.yaml"))
    assert names
    for name in names:
        sweep = load_sweep(name, ["evaluate.sts=x.tsv"])
        assert sweep.settings.name == name
