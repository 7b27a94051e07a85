"""Mixing: a batch is at least as far from the order of the corpus as by windows of 64 blocks, which one lane is."""

import numpy as np
import pytest

from unsee_dist.data.corpus.lanes import Lanes
from unsee_dist.data.corpus.order import Order
from unsee_dist.data.corpus.sizes import BlockSizes

BLOCKS, FULL = 10_000, 1024


def batches(batch, lanes, seed, steps=200):
    """(steps, batch) ids in the middle of an epoch. lanes: None = as many as the batch has."""
    sizes = BlockSizes.of(np.full(BLOCKS, FULL))
    order = Order(sizes, seed, Lanes(np.arange(batch), batch, BLOCKS, lanes))
    first = 2_000_000 // batch
    return order.ids(np.arange(first * batch, (first + steps) * batch)).reshape(steps, batch)


def nearest(ids):
    """Ids between the two closest sentences of a batch, the mean over batches."""
    return np.diff(np.sort(ids, axis=1), axis=1).min(axis=1).mean()


def in_one_block(ids):
    """Sentences of a batch beyond the first of their block."""
    return (np.diff(np.sort(ids // FULL, axis=1), axis=1) == 0).sum(axis=1).mean()


def serial(batch, lanes):
    """Of the mean place of a batch in the corpus: covariance with that of the next batch, as a part of the variance that
    batches of sentences drawn one by one have."""
    found = []
    for seed in range(40):
        means = (batches(batch, lanes, seed, 20) / (BLOCKS * FULL) - 0.5).mean(axis=1)
        found.append((means[:-1] * means[1:]).mean() * 12 * batch)
    return np.mean(found)


@pytest.mark.parametrize("batch", [32, 1024])
def test_sentences_of_a_batch_are_further_apart_than_without_lanes(batch):
    with_lanes, without = batches(batch, None, 1), batches(batch, 1, 1)
    assert nearest(with_lanes) > 5 * nearest(without)
    assert in_one_block(with_lanes) < 0.02 * batch
    assert in_one_block(without) > 0.15 * batch


@pytest.mark.parametrize(("batch", "expected"), [(32, 32 / 64), (1024, 1)])
def test_a_batch_is_no_more_like_the_next_than_without_lanes(batch, expected):
    """Of n blocks that both batches draw from: batch / n. One lane has 64, a batch of 1,024 places 1,024."""
    assert serial(batch, 1) == pytest.approx(batch / 64, rel=0.6)
    assert serial(batch, None) == pytest.approx(expected, rel=0.6)


def test_lanes_that_are_read_side_by_side_would_be_seen():
    """The control: an order that is not shuffled, in one lane, has neighbours in every batch."""
    ids = np.arange(200 * 32).reshape(200, 32)
    assert nearest(ids) == 1
    assert in_one_block(ids) > 0.9 * 31
