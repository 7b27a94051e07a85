"""The nearest word by edit distance over the whole key, and none where nothing is near."""

from __future__ import annotations

import random

import pytest

from unsee_dist.config.load import LEGAL
from unsee_dist.config.spelling import closest, closest_key, distance

MEANT = {
    "objctive.name": "objective.name",
    "objective.nmae": "objective.name",
    "obejctive.nam": "objective.name",
    "trian.lr": "train.lr",
    "train.btach": "train.batch",
    "train.batch_size": "train.batch",
    "train.micro_batch_size": "train.micro_batch",
    "trainlr": "train.lr",
    "train_lr": "train.lr",
    "lr": "train.lr",
    "stpes": "train.steps",
    "optim.lr": "train.lr",
    "model.max_token": "model.max_tokens",
    "Train.LR": "train.lr",
    "sed": "seed",
}
NOTHING = ("train.wd", "train.learning_rate", "zzz.qqq", "foo", "train.xyzzy", "other.name", "", "x" * 5000)


@pytest.mark.parametrize("key", MEANT)
def test_the_key_that_was_meant(key: str) -> None:
    assert closest_key(key, LEGAL) == f"did you mean {MEANT[key]}?"


@pytest.mark.parametrize("key", NOTHING)
def test_nothing_is_suggested_where_nothing_is_near(key: str) -> None:
    assert "did you mean" not in closest_key(key, LEGAL)


@pytest.mark.parametrize("seed", range(2))
def test_every_key_is_found_by_each_single_mistake(seed: int) -> None:
    """A letter left out, doubled, replaced or exchanged with the next, in any place but the dot."""
    rng = random.Random(seed)
    for key in LEGAL:
        place = rng.choice([i for i in range(len(key) - 1) if "." not in key[i : i + 2]])
        for wrong in (
            key[:place] + key[place + 1 :],
            key[:place] + key[place] + key[place:],
            key[:place] + "z" + key[place + 1 :],
            key[:place] + key[place + 1] + key[place] + key[place + 2 :],
        ):
            if wrong in LEGAL or min(map(len, wrong.split("."))) < 2:
                continue
            nearest = min(distance(wrong, other) for other in LEGAL)
            meant = closest_key(wrong, LEGAL).removeprefix("did you mean ").removesuffix("?")
            assert meant in LEGAL, (key, wrong, meant)
            assert distance(wrong, meant) == nearest


def test_a_section_is_named() -> None:
    assert closest_key("objctive", LEGAL) == "did you mean the section objective?"
    assert closest_key("train.learning_rate", LEGAL).startswith("train has batch, micro_batch, ")


def test_words() -> None:
    assert closest("tniy", ["ablation", "paper", "tiny"]) == "tiny"
    assert closest("barlow", ["barlow_twins", "vicreg"]) == "barlow_twins"
    assert closest("vicrge", ["barlow_twins", "vicreg"]) == "vicreg"
    assert closest("adam", ["ema", "online"]) is None
    assert (distance("tniy", "tiny"), distance("abc", ""), distance("kitten", "sitting")) == (1, 3, 3)
