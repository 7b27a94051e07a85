"""The verdict on an evaluation: collapsed, worse than before training, or neither."""

from __future__ import annotations

import math

import pytest

from unsee_dist.metrics.verdict import collapse, decline, gain_over, state

SOUND = {"dev/sts": 70.0, "dev/mrr": 0.5, "dev/std": 0.9, "dev/effective_rank": 80.0, "dev/collapsed": 0.0}


@pytest.mark.parametrize(
    ("measured", "found", "words"),
    [
        ({}, None, None),
        (
            {"dev/collapsed": 1.0, "dev/std": math.nan},
            "not finite",
            "the embeddings of all sentences are not finite",
        ),
        (
            {"dev/collapsed": 1.0, "dev/std": 1e-5},
            "one point",
            "the embeddings of all sentences are one point",
        ),
        (
            {"dev/collapsed": 1.0, "dev/effective_rank": 1.24, "dev/std": 0.05},
            "effective rank 1.2, std 0.05",
            "the embeddings have collapsed (effective rank 1.2, std 0.05)",
        ),
    ],
)
def test_how_embeddings_have_collapsed(
    measured: dict[str, float], found: str | None, words: str | None
) -> None:
    assert (state(SOUND | measured), collapse(SOUND | measured)) == (found, words)


@pytest.mark.parametrize(
    ("before", "now", "gain", "sentence"),
    [
        (
            {"dev/sts": 69.73},
            {"dev/sts": 68.99},
            -0.74,
            "worse than before training: dev/sts 68.99, before 69.73",
        ),
        ({"dev/sts": 69.0}, {"dev/sts": 70.5}, 1.5, None),
        ({"dev/sts": 69.0}, {"dev/sts": 69.0}, 0.0, None),
        (
            {"dev/mrr": 0.582},
            {"dev/mrr": 0.539},
            -0.043,
            "worse than before training: dev/mrr 0.539, before 0.582",
        ),
        (
            {"dev/sts": 60.0, "dev/mrr": 0.9},
            {"dev/sts": 61.0, "dev/mrr": 0.1},
            1.0,
            None,
        ),  # the first one decides
        ({"dev/mrr": 0.5}, {"dev/sts": 61.0}, None, None),
        ({"dev/sts": math.nan}, {"dev/sts": 61.0}, None, None),
        ({"dev/sts": 60.0}, {"dev/sts": 10.0, "dev/collapsed": 1.0}, None, None),  # collapsed says it all
        ({}, {"dev/std": 0.9}, None, None),
    ],
)
def test_the_gain_over_the_start_and_a_loss_in_words(
    before: dict[str, float], now: dict[str, float], gain: float | None, sentence: str | None
) -> None:
    found = gain_over(before, now)
    assert found == ({} if gain is None else {"dev/gain": pytest.approx(gain)})
    assert decline(now | found) == sentence
