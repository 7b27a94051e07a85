"""Rows of padding change no embedding, with dropout and without; and the ways in which they would."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from unit.model.encoders import make_encoder

from unsee_dist.config.sections import Pooling
from unsee_dist.data.stream.mask_keys import mask_keys
from unsee_dist.data.stream.packing import MicroBatch, pack
from unsee_dist.model.dropout import install, register
from unsee_dist.model.encoder import encode

# ten sentences in nine rows, to which one of padding is added
TOKENS = [[5 + n, *range(10, 21)] for n in range(8)] + [
    [7, 8, 9, 11, 12, 13, 14, 15],
    [9, 9, 8, 7, 7, 8, 9, 9],
]
ROW = 16


def packed(few_shapes: bool) -> MicroBatch:
    return pack(TOKENS, ROW, 0, True, mask_keys(0, 1, np.arange(len(TOKENS))), few_shapes)


def embedded(
    name: str, micro_batch: MicroBatch, pooling: Pooling = "mean", train: bool = True
) -> torch.Tensor:
    """(views, sentences, D)"""
    encoder = make_encoder(name, register())
    install(encoder)
    encoder.train(train)
    with torch.no_grad():
        return encode(encoder, micro_batch, pooling, 2).view(2, len(TOKENS), -1)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", ["bert", "roberta", "albert"])
def test_rows_of_padding_change_nothing(name: str, train: bool, pooling: Pooling) -> None:
    plain, few = packed(False), packed(True)
    assert (len(plain.input_ids), len(few.input_ids)) == (9, 10)
    expected = embedded(name, plain, pooling, train)
    torch.testing.assert_close(embedded(name, few, pooling, train), expected, rtol=1e-5, atol=1e-6)


def test_gradients_are_the_same() -> None:
    seen = []
    for few_shapes in (False, True):
        encoder = make_encoder("bert", register()).train()
        install(encoder)
        encode(encoder, packed(few_shapes), "mean", 2).square().sum().backward()
        seen.append({name: p.grad for name, p in encoder.named_parameters()})
    for name, expected in seen[0].items():
        torch.testing.assert_close(seen[1][name], expected, rtol=1e-4, atol=1e-5)


def test_padding_that_counts_as_a_sentence_fails() -> None:
    few = packed(True)
    of_a_sentence = few.segment_ids.clone()
    of_a_sentence[-1] = 3
    wrong = embedded("bert", replace(few, segment_ids=of_a_sentence))
    assert (wrong - embedded("bert", packed(False))).abs().max() > 1e-2


def test_counting_rows_in_place_of_saying_that_they_are_packed_fails() -> None:
    """Ten sentences in ten rows would be taken for one each."""
    wrong = embedded("bert", replace(packed(True), packed=False))
    assert (wrong - embedded("bert", packed(False))).abs().max() > 1e-2
