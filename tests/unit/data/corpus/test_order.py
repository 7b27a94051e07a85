"""The order is a permutation of all sentences in every epoch, and the same one for ever."""

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from unsee_dist.data.corpus.lanes import LANE_BLOCKS, LANES, Lanes
from unsee_dist.data.corpus.order import Order, key, keys, permute, permute_each
from unsee_dist.data.corpus.sizes import BlockSizes

sizes_of_blocks = st.lists(st.integers(1, 40), min_size=1, max_size=30)
batches = st.integers(1, 50)


def order_of(sizes, seed, window, batch=1, lanes=1):
    return Order(
        BlockSizes.of(np.array(sizes)), seed, Lanes(np.arange(batch), batch, len(sizes), lanes), window
    )


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


@given(
    sizes=sizes_of_blocks,
    seed=st.integers(0, 2**32),
    window=st.integers(1, 8),
    epoch=st.integers(0, 3),
    batch=batches,
    lanes=batches,
)
@settings(max_examples=100, deadline=None)
def test_every_epoch_holds_every_sentence_once(sizes, seed, window, epoch, batch, lanes):
    """Whatever part of an epoch or of a step the lanes are: more of them than sentences, too."""
    order = order_of(sizes, seed, window, batch, min(lanes, batch))
    n = sum(sizes)
    assert np.array_equal(np.sort(order.ids(np.arange(epoch * n, (epoch + 1) * n))), np.arange(n))


@given(
    sizes=sizes_of_blocks,
    full=st.integers(0, 100),
    seed=st.integers(0, 2**32),
    window=st.integers(1, 8),
    batch=batches,
    lanes=batches,
)
@settings(max_examples=100, deadline=None)
def test_a_position_at_a_time_is_the_epoch_written_out(sizes, full, seed, window, batch, lanes):
    """Order computes positions; here the module's definition lays all blocks and lanes out, full ones and others."""
    sizes, lanes = np.array([40] * full + sizes), min(lanes, batch)
    n, written_out = sizes.sum(), []
    for epoch in range(2):
        blocks = permute(np.arange(len(sizes)), len(sizes), key(seed, epoch, 0)).astype(int)
        sequence = []
        for number, first in enumerate(range(0, len(blocks), window)):
            ids = [np.arange(sizes[:b].sum(), sizes[: b + 1].sum()) for b in blocks[first : first + window]]
            ids = np.concatenate(ids)
            sequence += ids[
                permute(np.arange(len(ids)), len(ids), key(seed, epoch, 1, number)).astype(int)
            ].tolist()
        lane_of = [p % batch * lanes // batch for p in range(epoch * n, (epoch + 1) * n)]
        parts = iter(sequence)
        queues = [[next(parts) for _ in range(lane_of.count(lane))] for lane in range(lanes)]
        written_out += [queues[lane].pop(0) for lane in lane_of]
    assert order_of(sizes, seed, window, batch, lanes).ids(np.arange(2 * n)).tolist() == written_out


@given(sizes=sizes_of_blocks, seed=st.integers(0, 2**32), data=st.data())
@settings(max_examples=60, deadline=None)
def test_positions_may_be_asked_for_in_any_order_and_across_epochs(sizes, seed, data):
    order = order_of(sizes, seed, 3, 7, 4)
    whole = order.ids(np.arange(3 * sum(sizes)))
    asked = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=20)), dtype=np.int64)
    assert np.array_equal(order_of(sizes, seed, 3, 7, 4).ids(asked), whole[asked])


def test_a_window_reads_only_its_blocks():
    """The first W·size positions of a lane touch W blocks: what bounds a worker's memory."""
    size, window = 50, 4
    order = order_of([size] * 32, 9, window, batch=2, lanes=2)
    for lane in (0, 1):
        ids = order.ids(2 * np.arange(window * size) + lane)
        assert len(np.unique(ids // size)) == window
        assert order.open_blocks(lane, lane + 1) == 2 * window
    assert order_of([size] * 32, 9, 1, batch=2, lanes=2).open_blocks(0, 2) == 2


@pytest.mark.parametrize("window", [1, 2, 3])
def test_as_many_blocks_stay_open_as_two_windows_of_a_lane_have(window):
    """While a lane changes its window; blocks that are windows of their own are not changed but replaced."""
    order = order_of([50] * 64, 9, window, batch=2, lanes=2)
    assert [order.open_blocks(0, 1), order.open_blocks(0, 2)] == [
        window * min(window, 2),
        2 * window * min(window, 2),
    ]


@pytest.mark.parametrize(
    ("blocks", "window", "lanes"), [(32, 4, 2), (31, 3, 5), (8, 8, 1), (2, 1, 3), (2, 1, 20)]
)
@pytest.mark.parametrize("epoch", [0, 3])
def test_a_lane_reads_all_blocks_of_the_windows_that_it_takes_sentences_from(blocks, window, lanes, epoch):
    sizes = np.random.default_rng(blocks).integers(1, 9, blocks)
    order = order_of(sizes, 5, window, batch=lanes, lanes=lanes)
    positions = epoch * order.sentences + np.arange(order.sentences)
    lane_of_sentence = np.searchsorted(order.edges(), positions % lanes, side="right")
    block_of_sentence = np.repeat(np.arange(blocks), sizes)[order.ids(positions)]
    window_of_block = np.empty(blocks, dtype=np.int64)
    window_of_block[permute(np.arange(blocks), blocks, key(5, epoch, 0)).astype(np.int64)] = (
        np.arange(blocks) // window
    )
    taken = [window_of_block[block_of_sentence[lane_of_sentence == lane]] for lane in range(lanes)]
    assert order.read(epoch).tolist() == [sizes[np.isin(window_of_block, windows)].sum() for windows in taken]


def test_the_number_of_lanes_is_of_batch_and_corpus():
    """Nothing else is given. Small corpora have fewer, and more windows are open in each."""
    for batch, blocks, lanes, window in (
        (32, 10**5, 32, 2),
        (1024, 10**5, 1024, 1),
        (10**6, 10**5, LANES, 1),
        (1024, 100, 100 // LANE_BLOCKS, 3),
        (1024, 3, 1, 64),
        (1, 10**5, 1, 64),
    ):
        order = Order.of(BlockSizes.of(np.full(blocks, 8)), 1, batch)
        assert (order.lanes.number, order.window_blocks) == (lanes, window)


@pytest.mark.parametrize(("batch", "lanes"), [(7, 7), (50, 7), (4099, 1500)])
def test_lanes_take_equal_numbers_of_places_next_to_each_other(batch, lanes):
    found = Lanes(np.arange(batch), batch, 10**6, lanes)
    assert found.lane_of.tolist() == sorted(found.lane_of)
    widths = np.bincount(found.lane_of)
    assert len(widths) == lanes
    assert widths.max() - widths.min() <= 1
    assert found.edges().tolist() == np.cumsum(widths)[:-1].tolist()


def test_a_key_for_each_position_is_the_key_of_all():
    for n in (1, 2, 5, 64, 65, 1000, 4097):
        each = permute_each(np.arange(n), np.full(n, n), np.full(n, key(1, n), dtype=np.uint64))
        assert np.array_equal(each, permute(np.arange(n), n, key(1, n)))
    sizes = np.array([3, 1000, 70, 1000, 2**61])
    each = permute_each(sizes - 1, sizes, keys(9, 8, last=np.arange(5)))
    alone = [permute(np.array([n - 1]), n, key(9, 8, i))[0] for i, n in enumerate(sizes.tolist())]
    assert each.tolist() == [int(image) for image in alone]


def test_epochs_and_seeds_differ():
    def epoch(seed, number):
        return order_of([100] * 8, seed, 64).ids(np.arange(800) + 800 * number).tolist()

    assert len({tuple(epoch(seed, number)) for seed in (0, 1) for number in (0, 1)}) == 4


@pytest.mark.parametrize(
    ("batch", "digest"),
    [
        (1, "398bb16a368515a36cbce7c2c05f6ea0"),
        (24, "e5742b62a54466d044c8e1531a7ade2a"),
        (5000, "198c90c41523e63de66629850b667662"),
    ],
)
def test_golden_order(batch, digest):
    """Pinned: another order would change what every resumed run reads next. One lane is the order of version 1."""
    sizes = np.array([1024] * 150 + [313])
    ids = Order.of(BlockSizes.of(sizes), 2024, batch).ids(np.arange(2 * sizes.sum()))
    assert xxhash.xxh3_128_hexdigest(ids.astype("<i8").tobytes()) == digest


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64, np.int64, list])
def test_ids_are_int64_whatever_sizes_and_positions_are(dtype):
    """uint64 and int64 together would be floats, and a large id another one."""
    sizes, positions = [3, 7, 7, 2, 7], [0, 40, 25, 51]
    expected = order_of(sizes, 5, 2, 3, 2).ids(np.array(positions))
    given = [values if dtype is list else np.array(values, dtype=dtype) for values in (sizes, positions)]
    ids = order_of(given[0], 5, 2, 3, 2).ids(given[1])
    assert ids.dtype == np.int64
    assert np.array_equal(ids, expected)


def test_an_order_of_nothing_has_no_sentences():
    assert Order.of(BlockSizes.of(np.array([], dtype=np.int64)), 1, 4).sentences == 0


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_ids_beyond_what_a_float_holds_are_exact(dtype):
    """One block of 2^60 sentences: an epoch is one window, and its order is the window's permutation."""
    size = 2**60 + 1
    positions = np.array([0, 5, 2**59 + 1, size - 1])
    expected = permute(positions.astype(np.uint64), size, key(7, 0, 1, 0)).astype(np.int64)
    assert np.array_equal(
        Order.of(BlockSizes.of(np.array([size], dtype=dtype)), 7, 8).ids(positions), expected
    )


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
