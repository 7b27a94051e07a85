"""Of the sizes of blocks only the short ones are stored, and every id is found as in a list of all of them."""

import pickle
from itertools import chain

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unsee_dist.data.corpus.sizes import BlockSizes

some_blocks = st.lists(st.integers(1, 40), min_size=1, max_size=30)
nearly_full = st.builds(lambda full, others: [40] * full + others, st.integers(0, 60), some_blocks)


def is_as_written_out(sizes, written_out):
    """Against plain lists."""
    assert (len(sizes), sizes.sentences) == (len(written_out), sum(written_out))
    assert [sizes[block] for block in range(len(sizes))] == written_out
    for first in range(0, len(sizes) + 1, 7):
        assert sizes.between(first, len(sizes)).tolist() == written_out[first:]
        assert sizes.between(0, first).tolist() == written_out[:first]
    ends = np.cumsum(written_out)
    assert np.array_equal(sizes.first_ids(np.arange(len(sizes))), ends - written_out)
    where = [(block, line) for block, size in enumerate(written_out) for line in range(size)]
    blocks, lines = sizes.find(np.arange(sizes.sentences))
    assert list(zip(blocks.tolist(), lines.tolist(), strict=True)) == where
    assert (blocks.dtype, lines.dtype) == (np.int64, np.int64)


@given(nearly_full)
@settings(max_examples=60, deadline=None)
def test_sizes_are_those_that_were_given(sizes):
    is_as_written_out(BlockSizes.of(np.array(sizes)), sizes)


@given(st.lists(nearly_full, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_joined_sizes_are_those_of_one_part_after_the_other(parts):
    joined = BlockSizes.joined([BlockSizes.of(np.array(part)) for part in parts])
    is_as_written_out(joined, list(chain.from_iterable(parts)))


def test_ten_million_full_blocks_are_a_few_bytes():
    """What a worker is sent."""
    sizes = BlockSizes.of(np.append(np.full(10**7, 1024, dtype=np.uint16), 7))
    assert len(pickle.dumps(sizes)) < 1000
    assert sizes.sentences == 10**7 * 1024 + 7
    (block,), (line,) = sizes.find(np.array([10**7 * 1024 + 6]))
    assert (block, line, sizes[int(block)]) == (10**7, 6, 7)
