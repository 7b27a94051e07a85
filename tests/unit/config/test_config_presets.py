"""Presets: all load, hold nothing but their differences, and say what RECIPE's table says."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from unsee_dist.config import RunConfig, load, presets
from unsee_dist.config.layers import file_layers
from unsee_dist.config.load import SECTIONS, merge
from unsee_dist.config.objective import OBJECTIVE_SETTINGS

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


def test_base_states_every_default() -> None:
    """One truth in two places, for Python and for people: they may not drift apart."""
    base = load("base").model_copy(update={"run": RunConfig().run})
    assert base == RunConfig()
    (typed,) = file_layers("base", SECTIONS, [])[1]
    dumped = RunConfig().model_dump()
    flat = {f"{s}.{k}" for s, part in dumped.items() if isinstance(part, dict) for k in part} | {
        "seed",
        "resume",
    }
    assert typed.keys() == flat


@pytest.mark.parametrize("name", [name for name in NAMES if name != "base"])
def test_a_preset_holds_only_its_differences(name: str) -> None:
    """Every key it writes changes what it extends; settings that come with a new objective are shown."""
    problems: list[Any] = []
    layers = file_layers(name, SECTIONS, problems)[1]
    own, below = layers[-1], merge(layers[:-1])
    assert problems == []
    assert len(layers) >= 2
    fresh = "objective.name" in own
    same = {key for key, typed in own.items() if key in below and typed.value == below[key].value} - {
        key for key in own if fresh and key.startswith("objective.") and key != "objective.name"
    }
    assert same == set()


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
