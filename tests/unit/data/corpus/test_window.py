"""The blocks of token ids that a worker keeps: right sentences, each block read once while it is kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unsee_dist.data.corpus.ragged import Ragged, ragged
from unsee_dist.data.corpus.tokens import Window


class Blocks:
    """Blocks of different sizes with sentences of different lengths, one of a wider type."""

    def __init__(self):
        self.read_blocks = []

    def sentences(self, block):
        return [[block * 100 + line] * (1 + (block * 7 + line) % 9) for line in range(1 + block % 13 * 3)]

    def read(self, block):
        self.read_blocks.append(block)
        made = ragged(self.sentences(block))
        return Ragged(made.ids.astype("<u4" if block % 11 == 10 else "<u2"), made.lengths)


@given(
    limit=st.integers(1, 12),
    calls=st.lists(
        st.lists(st.tuples(st.integers(0, 29), st.integers(0, 99)), min_size=1, max_size=20), max_size=30
    ),
)
@settings(max_examples=100, deadline=None)
def test_it_gives_the_sentences_that_are_asked_for(limit, calls):
    blocks = Blocks()
    window = Window(blocks.read, limit)
    for asked in calls:
        places = [(block, line % len(blocks.sentences(block))) for block, line in asked]
        taken = window.take(*map(np.array, zip(*places, strict=True)))
        found = np.split(taken.ids, np.cumsum(taken.lengths)[:-1])
        assert [each.tolist() for each in found] == [blocks.sentences(block)[line] for block, line in places]


@pytest.mark.parametrize("limit", [3, 4])
def test_the_block_that_was_used_longest_ago_is_dropped(limit):
    blocks = Blocks()
    window = Window(blocks.read, limit)
    for asked in ([1, 2, 3], [1, 2], [4], [1, 2, 4], [3]):
        window.take(np.array(asked), np.zeros(len(asked), dtype=int))
    assert blocks.read_blocks == ([1, 2, 3, 4, 3] if limit == 3 else [1, 2, 3, 4])


def test_a_call_may_need_more_blocks_than_are_kept():
    blocks = Blocks()
    window = Window(blocks.read, 2)
    for _ in range(2):
        taken = window.take(np.arange(8), np.zeros(8, dtype=int))
        assert taken.ids[np.cumsum(taken.lengths) - 1].tolist() == [block * 100 for block in range(8)]
    assert blocks.read_blocks == list(range(8))
