"""The order is a permutation of all sentences in every epoch, and the same one for ever."""

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from unsee_dist.data.corpus.order import Order, key, permute
from unsee_dist.data.corpus.sizes import BlockSizes

sizes_of_blocks = st.lists(st.integers(1, 40), min_size=1, max_size=30)


@given(n=st.integers(1, 5000), seed=st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_permute_is_a_permutation(n, seed):
    assert np.array_equal(np.sort(permute(np.arange(n), n, seed)), np.arange(n, dtype=np.uint64))


@given(n=st.integers(1, 5000), seed=st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_the_inverse_leads_back(n, seed):
    images = permute(np.arange(n), n, seed)
    assert np.array_equal(permute(images, n, seed, inverse=True), np.arange(n, dtype=np.uint64))


@pytest.mark.parametrize("n", [2, 3, 8])
def test_permute_is_uniform_over_keys(n):
    """Chi-square of (position, image) counts over 2,000 keys: four rounds fail this at n = 2."""
    keys = 2000
    counts = np.zeros((n, n))
    for k in range(keys):
        counts[np.arange(n), permute(np.arange(n), n, key(k)).astype(int)] += 1
    freedom = (n - 1) ** 2
    chi_square = ((counts - keys / n) ** 2 / (keys / n)).sum()
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5


@given(sizes=sizes_of_blocks, seed=st.integers(0, 2**32), window=st.integers(1, 8), epoch=st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_every_epoch_holds_every_sentence_once(sizes, seed, window, epoch):
    order = Order(BlockSizes.of(np.array(sizes)), seed, window)
    n = sum(sizes)
    assert np.array_equal(np.sort(order.ids(np.arange(epoch * n, (epoch + 1) * n))), np.arange(n))


@given(sizes=sizes_of_blocks, full=st.integers(0, 100), seed=st.integers(0, 2**32), window=st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_a_window_at_a_time_is_the_epoch_written_out(sizes, full, seed, window):
    """Order computes windows; here the module's definition lays all blocks out, full ones and others."""
    sizes = np.array([40] * full + sizes)
    written_out = []
    for epoch in range(2):
        blocks = permute(np.arange(len(sizes)), len(sizes), key(seed, epoch, 0)).astype(int)
        for number, first in enumerate(range(0, len(blocks), window)):
            ids = [np.arange(sizes[:b].sum(), sizes[: b + 1].sum()) for b in blocks[first : first + window]]
            ids = np.concatenate(ids)
            written_out.append(
                ids[permute(np.arange(len(ids)), len(ids), key(seed, epoch, 1, number)).astype(int)]
            )
    expected = np.concatenate(written_out)
    assert np.array_equal(Order(BlockSizes.of(sizes), seed, window).ids(np.arange(len(expected))), expected)


@given(sizes=sizes_of_blocks, seed=st.integers(0, 2**32), data=st.data())
@settings(max_examples=60, deadline=None)
def test_positions_may_be_asked_for_in_any_order_and_across_epochs(sizes, seed, data):
    order = Order(BlockSizes.of(np.array(sizes)), seed, 3)
    whole = order.ids(np.arange(3 * sum(sizes)))
    asked = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=20)), dtype=np.int64)
    assert np.array_equal(Order(BlockSizes.of(np.array(sizes)), seed, 3).ids(asked), whole[asked])


def test_a_window_reads_only_its_blocks():
    """The first W·size positions of an epoch touch W blocks: what bounds a worker's memory."""
    size, window = 50, 4
    order = Order(BlockSizes.of(np.full(32, size)), 9, window)
    assert len(np.unique(order.ids(np.arange(window * size)) // size)) == window


def test_epochs_and_seeds_differ():
    def epoch(seed, number):
        return Order(BlockSizes.of(np.full(8, 100)), seed).ids(np.arange(800) + 800 * number).tolist()

    assert len({tuple(epoch(seed, number)) for seed in (0, 1) for number in (0, 1)}) == 4


def test_golden_order():
    """Pinned: another order would change what every resumed run reads next."""
    sizes = np.array([1024] * 150 + [313])
    ids = Order(BlockSizes.of(sizes), seed=2024).ids(np.arange(2 * sizes.sum()))
    assert xxhash.xxh3_128_hexdigest(ids.astype("<i8").tobytes()) == "398bb16a368515a36cbce7c2c05f6ea0"


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64, np.int64, list])
def test_ids_are_int64_whatever_sizes_and_positions_are(dtype):
    """uint64 and int64 together would be floats, and a large id another one."""
    sizes, positions = [3, 7, 7, 2, 7], [0, 40, 25, 51]
    expected = Order(BlockSizes.of(np.array(sizes)), 5, 2).ids(np.array(positions))
    given = [values if dtype is list else np.array(values, dtype=dtype) for values in (sizes, positions)]
    ids = Order(BlockSizes.of(given[0]), 5, 2).ids(given[1])
    assert ids.dtype == np.int64
    assert np.array_equal(ids, expected)


def test_an_order_of_nothing_has_no_sentences():
    assert Order(BlockSizes.of(np.array([], dtype=np.int64)), 1).sentences == 0


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_ids_beyond_what_a_float_holds_are_exact(dtype):
    """One block of 2^60 sentences: an epoch is one window, and its order is the window's permutation."""
    size = 2**60 + 1
    positions = np.array([0, 5, 2**59 + 1, size - 1])
    expected = permute(positions.astype(np.uint64), size, key(7, 0, 1, 0)).astype(np.int64)
    assert np.array_equal(Order(BlockSizes.of(np.array([size], dtype=dtype)), 7).ids(positions), expected)


@pytest.mark.parametrize(
    ("n", "first"),
    [
        (2, [0, 1]),
        (5, [1, 0, 4, 3, 2]),
        (64, [8, 27, 41, 45, 53, 44, 36, 0]),
        (65, [9, 33, 59, 41, 44, 2, 19, 60]),
    ],
)
def test_the_permutation_of_a_few_is_pinned(n, first):
    """The golden order above has large windows only; these have the smallest network, and the first larger one."""
    assert permute(np.arange(min(n, 8)), n, key(1, n)).tolist() == first
