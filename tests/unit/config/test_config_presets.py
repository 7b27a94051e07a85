"""Presets: all load, hold nothing but their differences, and say what RECIPE's table says."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from unsee_dist.config import RunConfig, load, presets
from unsee_dist.config.kinds import flat
from unsee_dist.config.layers import file_layers
from unsee_dist.config.load import SECTIONS, resolve
from unsee_dist.config.objective import OBJECTIVE_SETTINGS, CorInfoMaxSettings, VICRegSettings

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def test_all_presets_are_there_and_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {name: load(name) for name in NAMES}
    monkeypatch.chdir(tmp_path)
    assert (
        set(NAMES)
        == set(presets())
        >= {
            *("base", "unsee-vicreg", "unsee-barlow", "unsee-corinfomax", "byol", "simcse", "simcse-fair"),
            *("released-code-vicreg", "released-code-barlow", "released-code-corinfomax"),
            *("no-target", "target-projector", "quickstart"),
        }
    )
    for name in NAMES:
        assert load(name) == load(f"{name}.yaml") == load(str(CONFIGS / f"{name}.yaml")) == here[name]


def test_base_explains_every_setting_and_sets_none() -> None:
    """The defaults are those of the code, once: a value in base.yaml would be a second place."""
    assert load("base").model_copy(update={"run": RunConfig().run}) == RunConfig()
    assert file_layers("base", SECTIONS, [])[1] == [{}]
    explained, section = set(), ""
    for line in (CONFIGS / "base.yaml").read_text().splitlines():
        if heading := re.match(r"# (\w+):(?: {2,}|$)", line):
            section = heading[1]
        elif key := re.match(r"# (  )?(\w+) {2,}\S", line):
            explained.add(f"{section}.{key[2]}" if key[1] else key[2])
    assert explained == flat(RunConfig()).keys()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "base"])
def test_a_preset_holds_only_its_differences(name: str) -> None:
    """Without any key that it writes it would be another run."""
    problems: list[Any] = []
    path, layers = file_layers(name, SECTIONS, problems)
    assert len(layers) >= 2
    whole, own = resolve(path, layers, problems), layers[-1]
    for key in own:
        rest = {other: typed for other, typed in own.items() if other != key}
        without = resolve(path, [*layers[:-1], rest], [])
        assert without != whole, key
    assert problems == []


def test_settings_without_a_name_are_those_of_the_default_objective(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    for first in ("", "extends: base.yaml\n"):
        mine.write_text(f"{first}objective:\n  covariance: 2\n")
        assert load(str(mine)).objective == VICRegSettings(covariance=2.0)
        assert load(str(mine), ["objective.name=vicreg"]).objective == VICRegSettings(covariance=2.0)
        assert load(str(mine), ["objective.name=corinfomax"]).objective == CorInfoMaxSettings()
    assert load("base", ["objective.invariance=3"]).objective == VICRegSettings(invariance=3.0)


def test_presets_say_what_the_paper_says() -> None:
    config = {name: load(name) for name in NAMES}
    for name in ("unsee-vicreg", "unsee-barlow", "unsee-corinfomax"):
        base, released = config[name], config[name.replace("unsee", "released-code")]
        assert (base.projector.blocks, released.projector.blocks) == (1, 4)
        assert (base.train.batch, base.train.lr, base.target.kind) == (32, 1e-4, "ema")
    affine = {name: settings.objective.settings().get("affine") for name, settings in config.items()}
    assert (affine["unsee-barlow"], affine["released-code-barlow"]) == (False, True)
    own, fair = config["simcse"], config["simcse-fair"]
    assert (own.train.batch, own.train.warmup, own.model.max_tokens, own.model.pooling) == (64, 0, 32, "cls")
    assert fair.model == config["base"].model
    assert fair.train == config["base"].train.model_copy(update={"lr": 3e-5})
    assert {own.target.kind, fair.target.kind, config["no-target"].target.kind} == {"online"}
    assert {own.projector.kind, fair.projector.kind} == {"tanh"}
    assert config["no-target"].projector.side == config["target-projector"].projector.side == "both"
    assert config["byol"].projector.blocks == 1


@pytest.mark.parametrize("name", OBJECTIVE_SETTINGS)
def test_settings_are_the_objectives_own_with_their_defaults(name: str) -> None:
    from unsee_dist.objectives import OBJECTIVES

    parameters = inspect.signature(OBJECTIVES[name]).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert OBJECTIVES.keys() == OBJECTIVE_SETTINGS.keys()
    assert OBJECTIVE_SETTINGS[name]().settings() == own
