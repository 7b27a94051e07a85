"""The identity of a run follows what files hold, not how they are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from unsee_dist.config import load
from unsee_dist.config.kinds import SettingDifference, differences
from unsee_dist.metrics.retrieval import make_questions
from unsee_dist.metrics.sts import Pairs
from unsee_dist.training.checkpoint.manifest import Identity
from unsee_dist.training.identity import describe_sets, identity_of

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"]
PAIRS = Pairs(["a", "b"], ["b", "c"], np.array([1.0, 2.0]))
QUESTIONS = make_questions([("a", "b"), ("b", "c")], "dev")


def given(setting: str = "seed=0", words: list[str] = WORDS, **other: object) -> Identity:
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    encoder = BertModel(shape, add_pooling_layer=False)
    if "scale" in other:
        next(encoder.parameters()).data.mul_(other.pop("scale"))
    parts = {"corpus": "c1", "sts": {"dev": PAIRS}, "retrieval": {"dev": QUESTIONS}} | other
    tokenizer = BertTokenizerFast(vocab={word: place for place, word in enumerate(words)})
    return identity_of(load("base", [setting]), encoder, tokenizer, *parts.values())


def test_the_same_is_the_same_whatever_the_files_are_called() -> None:
    assert (
        given()
        == given(sts={"moved": PAIRS}, retrieval={"other": QUESTIONS})
        == given("data.shards=elsewhere")
    )


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("settings", lambda: given("model.pooling=cls")),
        ("settings", lambda: given("train.lr=1e-3")),
        ("encoder", lambda: given(scale=1.0001)),
        ("tokenizer", lambda: given(words=[*WORDS[:5], "b", "a", "c"])),
        ("corpus", lambda: given(corpus="c2")),
        ("sts", lambda: given(sts={"dev": PAIRS._replace(scores=np.array([1.0, 3.0]))})),
        ("sts", lambda: given(sts={"dev": PAIRS._replace(first=["a", "c"])})),
        ("sts", lambda: given(sts={"dev": PAIRS, "more": PAIRS})),
        ("sts", lambda: given(sts={})),
        ("retrieval", lambda: given(retrieval={"dev": make_questions([("a", "b"), ("a", "c")], "dev")})),
        ("retrieval", lambda: given(retrieval={})),
    ],
)
def test_each_content_changes_its_own_part_alone(field: str, change: Callable[[], Identity]) -> None:
    first, other = given(), change()
    assert [e.name for e in fields(Identity) if getattr(first, e.name) != getattr(other, e.name)] == [field]


def test_another_order_of_sentences_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = given()
    monkeypatch.setattr("unsee_dist.data.corpus.order.VERSION", 3)
    assert differences(before.by_key(), given().by_key()) == [
        SettingDifference("order", "order of sentences, version 2", "order of sentences, version 3")
    ]


def test_texts_that_run_into_each_other_differ() -> None:
    one, two = (
        describe_sets([(texts, ["x"], np.array([1.0]))], "pairs") for texts in (["ab", "c"], ["a", "bc"])
    )
    assert one != two
    assert describe_sets([], "pairs") == "absent"
