"""Every setting has one kind, and a difference is shown as it would be typed."""

from __future__ import annotations

import pytest

from unsee_dist.config import load
from unsee_dist.config.kinds import (
    BEFORE,
    CARRIED,
    KINDS,
    Kind,
    SettingDifference,
    differences,
    flat,
    is_carried,
    kind_of,
    of_kind,
    shown,
    table,
)
from unsee_dist.config.load import LEGAL


@pytest.mark.parametrize("key", LEGAL)
def test_every_setting_has_a_kind(key: str) -> None:
    assert kind_of(key) in Kind


def test_no_kind_is_declared_for_a_setting_that_is_none() -> None:
    sections = {key.partition(".")[0] for key in LEGAL}
    assert set(KINDS) <= {*LEGAL, *sections}
    assert set(CARRIED) <= {*LEGAL, *sections, "tokenizer", "order"}


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        (
            Kind.RESULT,
            "seed model.pooling model.max_tokens model.dropout target.decay objective.covariance train.lr",
        ),
        (Kind.RESULT, "train.batch train.warmup train.clip train.weight_decay projector.blocks"),
        (Kind.CONTENT, "model.encoder data.shards data.mix evaluate.sts evaluate.retrieval"),
        (
            Kind.CHANGE,
            "parallel.zero train.micro_batch data.workers checkpoint.every track.mlflow evaluate.every run.dir",
        ),
        (Kind.GROW, "train.steps train.epochs"),
    ],
)
def test_the_kinds(kind: Kind, keys: str) -> None:
    assert {kind_of(key) for key in keys.split()} == {kind}


def test_settings_that_are_typed_otherwise_are_equal() -> None:
    assert flat(load("base", ["train.lr=1e-3"])) == flat(load("base", ["train.lr=0.001"]))


def test_what_differs_is_a_table_of_what_is_there_and_what_was_given() -> None:
    there, here = (
        of_kind(flat(load("base", given)), Kind.RESULT)
        for given in (
            ["train.clip=null"],
            ["train.lr=1e-3", "train.clip=2", "data.workers=7", "model.pooling=cls"],
        )
    )
    assert table(differences(there, here)).splitlines() == [
        "  setting        there   here",
        "  model.pooling  mean    cls",
        "  train.lr       0.0001  0.001",
        "  train.clip     absent  2.0",
    ]


def test_of_another_objective_the_name_alone_differs() -> None:
    there, here = (flat(load("base", [f"objective.name={name}"])) for name in ("vicreg", "byol"))
    assert differences(there, here) == [SettingDifference("objective.name", "vicreg", "byol")]


@pytest.mark.parametrize(
    ("key", "carried"),
    [
        ("train.lr", False),
        ("train.batch", True),
        ("projector.width", True),
        ("tokenizer", True),
        ("evaluate.sts", False),
    ],
)
def test_what_another_run_must_share_with_the_checkpoint_it_starts_from(key: str, carried: bool) -> None:
    assert is_carried(key) == carried


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "absent"), (True, "true"), (1e-4, "0.0001"), (["a.tsv", "b.tsv"], "[a.tsv, b.tsv]")],
)
def test_a_value_is_shown_as_it_is_typed(value: object, text: str) -> None:
    assert shown(value) == text


def test_what_a_foreign_file_holds_is_one_short_line_of_a_table() -> None:
    lines = table(
        [
            SettingDifference("model.encoder", "bert \x1b[2J" + 3000 * "x", "bert"),
            SettingDifference("evil\nkey", 5000 * "y", None),
            SettingDifference("train.lr", "0.001", 0.001),
        ]
    ).splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) < 300
    assert all(line.isprintable() for line in lines)
    assert "bert \\x1b[2Jxxx" in lines[1]
    assert "'0.001'" in lines[3]  # a text there, a number here
    assert "0.001" in lines[3].replace("'0.001'", "")


def test_a_checkpoint_that_is_older_than_a_setting_had_its_default() -> None:
    """Only where that is what all runs did before there was the setting."""
    now = flat(load("base"))
    older = {key: value for key, value in now.items() if key not in BEFORE}
    assert differences(older, now) == []
    assert {key: now[key] for key in BEFORE} == BEFORE
    crop = flat(load("base", ["data.views=crop", "data.crop_distance=5"]))
    assert {each.key for each in differences(older, crop)} == {"data.views", "data.crop_distance"}
