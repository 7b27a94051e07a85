"""Settings that would be taken and not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from unsee_dist.config import load
from unsee_dist.config.mistakes import ConfigError
from unsee_dist.config.unused import under


def refusal(name: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(name, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("no-target", ("target.decay=0.9",), "target.decay = 0.9 — command line — has no effect with target.kind = online"),
        ("base", ("target.kind=online", "target.schedule=cosine"), "target.kind=ema"),
        ("base", ("projector.kind=tanh", "projector.blocks=2"), "no effect with projector.kind = tanh"),
        ("simcse", ("projector.width=2",), "use it with projector.kind=blocks"),
        ("base", ("projector.blocks=0", "projector.width=2"), "no effect with projector.blocks = 0"),
        ("base", ("projector.blocks=0", "projector.side=both"), "no effect with projector.blocks = 0"),
        ("base", ("data.mix=1 a, 2 b", "data.shards=c"), "name the folder in data.mix"),
        ("quickstart", ("train.epochs=3",), "has no effect with train.steps = 1000"),
        ("base", ("train.steps=5", "train.epochs=3"), "write the number of steps alone"),
        ("base", ("data.crop_tokens=20",), "data.crop_tokens = 20 — command line — has no effect with data.views = dropout"),
        ("base", ("data.views=dropout", "data.crop_distance=20"), "use it with data.views=crop"),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_refused(name: str, overrides: tuple[str, ...], words: str) -> None:
    found = refusal(name, *overrides)
    assert words in found
    assert "1 mistake\n" in found


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("base", ("target.kind=online",)),  # base.yaml has a decay, under it
        ("no-target", ("target.kind=ema", "target.decay=0.9")),
        ("base", ("projector.blocks=0",)),
        ("base", ("data.mix=1 a, 2 b",)),
        ("quickstart", ("train.steps=null", "train.epochs=3")),
        ("quickstart", ("train.steps=20",)),
        ("base", ("data.views=crop", "data.crop_tokens=20", "data.crop_distance=0")),
        ("base", ("projector.kind=tanh", "projector.side=both")),
    ],
)
def test_a_setting_below_the_one_that_decides_is_no_mistake(name: str, overrides: tuple[str, ...]) -> None:
    load(name, overrides)


def test_a_file_over_a_preset_and_the_settings_of_a_run(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: no-target\ntarget:\n  decay: 0.9\n")
    assert "mine.yaml:3" in refusal(str(mine))
    mine.write_text("extends: base\ntarget:\n  kind: online\n  decay: 0.9\n")  # both in one file
    assert "mine.yaml:4 — has no effect with target.kind = online" in refusal(str(mine))
    mine.write_text("target:\n  decay: 0.9\n  kind: online\n")
    assert "target.decay = 0.9" in refusal(str(mine))
    mine.write_text(load("no-target").as_yaml())  # a run's config.yaml states all
    assert load(str(mine), ["train.lr=1e-3"]).target.kind == "online"
    assert "target.decay" in refusal(str(mine), "target.decay=0.9")


def test_a_variant_of_a_bench_drops_what_it_makes_meaningless() -> None:
    mine = ["projector.width=4", "train.lr=1e-3", "train.epochs=2", "target.decay=0.9"]
    simcse = ["target.kind=online", "projector.kind=tanh", "train.micro_batch=null"]
    config = load("base", under(simcse, mine))
    assert (config.train.lr, config.train.epochs, config.projector.kind) == (1e-3, 2, "tanh")
    assert under(["train.steps=3"], mine) == [*mine[:2], mine[3], "train.steps=3"]
    assert under(["train.steps=null"], mine) == [*mine, "train.steps=null"]
