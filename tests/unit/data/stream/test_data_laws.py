"""The laws of order and stream over random corpora, windows, batches, ranks and places to resume."""

import tracemalloc
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_configs import stream_config

from unsee_dist.data.corpus.order import Order, key, permute
from unsee_dist.data.corpus.sizes import BlockSizes
from unsee_dist.data.stream.mask_keys import mask_keys
from unsee_dist.data.stream.stream import _StepDataset


class Made:
    """A corpus by rule: blocks of given sizes, the sentence of id i is i spelt in words, its own window."""

    on_damage, fingerprint, path = "stop", "made", "made"

    def __init__(self, sizes, window):
        self.sizes, self.window_blocks = np.array(sizes), window
        self.ends = np.cumsum(self.sizes)
        self.sentences = int(self.ends[-1])
        self.reads = 0

    def order(self, seed):
        return Order(BlockSizes.of(self.sizes), seed, self.window_blocks)

    def tokens(self, *_):
        return None

    def find(self, ids):
        blocks = np.searchsorted(self.ends, ids, side="right")
        return blocks, ids - self.ends[blocks] + self.sizes[blocks]

    def read(self, block):
        self.reads += 1
        first = self.ends[block] - self.sizes[block]
        return [spelt(i) for i in range(first, first + self.sizes[block])]


def spelt(number):
    return " ".join(
        ["ba", "be", "bi", "bo", "bu", "da", "de", "di", "do", "du"][int(digit)] for digit in str(number)
    )


def oracle(sizes, seed, window, epochs):
    """All ids in order, by lists: the definition of the order, written out."""
    firsts = [end - size for end, size in zip(accumulate(sizes), sizes, strict=True)]
    found = []
    for epoch in range(epochs):
        blocks = permute(np.arange(len(sizes)), len(sizes), key(seed, epoch, 0)).tolist()
        for number, start in enumerate(range(0, len(blocks), window)):
            ids = [firsts[b] + line for b in blocks[start : start + window] for line in range(sizes[b])]
            places = permute(np.arange(len(ids)), len(ids), key(seed, epoch, 1, number)).tolist()
            found += [ids[place] for place in places]
    return found


layouts = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.integers(1, 30), min_size=1, max_size=12),
        "window": st.integers(1, 6),
        "seed": st.integers(0, 2**63 - 1),
        "part": st.integers(1, 5),  # sentences a step in twelfths: batches of 12 to 60 split over many ranks
    }
)


def part_of_step(corpus, tokenizer, seed, batch, rank, ranks):
    return _StepDataset(
        corpus, tokenizer, stream_config(seed=seed, batch=batch, micro_batch=5, max_tokens=16), rank, ranks
    )


@given(layout=layouts, data=st.data())
@settings(max_examples=30, deadline=None)
def test_resumed_at_every_step_on_changing_layouts_it_is_the_oracle(tokenizer, layout, data):
    """Each step read by another number of ranks, from scratch: as if killed and resumed before every one."""
    sizes, batch = layout["sizes"], 12 * layout["part"]
    corpus = Made(sizes, layout["window"])
    steps = min(6, 3 * corpus.sentences // batch) or 1
    epochs = steps * batch // corpus.sentences + 1
    expected = oracle(sizes, layout["seed"], layout["window"], epochs)
    for step in range(1, steps + 1):
        ranks = data.draw(st.sampled_from([1, 2, 3, 4, 6, 12]), label=f"ranks of step {step}")
        parts = [
            part_of_step(corpus, tokenizer, layout["seed"], batch, rank, ranks)[step] for rank in range(ranks)
        ]
        ids = [i for part in parts for i in part.ids]
        assert ids == expected[(step - 1) * batch : step * batch]
        for part in parts:
            read = [
                micro_batch.input_ids[micro_batch.segment_ids == n][1:-1].tolist()
                for micro_batch in part.micro_batches
                for n in range(micro_batch.sentences)
            ]
            assert read == [tokenizer(spelt(i), add_special_tokens=False)["input_ids"] for i in part.ids]
            keys = [number for micro_batch in part.micro_batches for number in micro_batch.keys.tolist()]
            assert keys == mask_keys(layout["seed"], step, np.array(part.ids)).tolist()


@given(layout=layouts)
@settings(max_examples=30, deadline=None)
def test_the_union_over_ranks_is_an_exact_permutation_of_every_epoch(tokenizer, layout):
    """Tail included: epochs end inside batches, and none is short, padded or repeated."""
    corpus, batch = Made(layout["sizes"], layout["window"]), 12 * layout["part"]
    epochs = -(-2 * batch // corpus.sentences) + 1
    parts = [part_of_step(corpus, tokenizer, layout["seed"], batch, rank, 3) for rank in range(3)]
    steps = -(-epochs * corpus.sentences // batch)
    ids = np.concatenate([part.ids(step)[0] for step in range(1, steps + 1) for part in parts])
    for epoch in range(epochs):
        whole = ids[epoch * corpus.sentences : (epoch + 1) * corpus.sentences]
        assert np.array_equal(np.sort(whole), np.arange(corpus.sentences))


def test_an_order_that_drops_the_tail_or_repeats_is_caught():
    """The control: whole batches per epoch, and an epoch padded by its first sentences, as samplers do it."""
    n, batch = 103, 12
    ids = Order(BlockSizes.of(np.array([40, 40, 23])), 1, 2).ids(np.arange(n))
    dropped, padded = ids[: n // batch * batch], np.append(ids, ids[: -n % batch])
    for wrong in (dropped, padded):
        assert not np.array_equal(np.sort(wrong), np.arange(n))


def test_an_epoch_reads_each_block_about_once(tokenizer):
    """What locality is for: blocks are read once a window, and a window's end falls into a batch."""
    corpus = Made([64] * 40, 8)
    parts = part_of_step(corpus, tokenizer, 5, 20, 0, 1)
    for step in range(1, 128 + 1):
        parts[step]
    assert 40 <= corpus.reads <= 40 + 5  # a batch across two windows may read a block again


@pytest.mark.parametrize("position", [0, 3_123_456_789, 11_999_999_000])
def test_four_billion_sentences_are_sought_in_a_few_megabytes(position):
    """How long it takes is `make bench`'s to say."""
    sizes = BlockSizes.of(np.full(4_000_000_000 // 1024, 1024))
    tracemalloc.start()
    ids = Order(sizes, 7).ids(np.arange(position, position + 1024))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(ids.tolist())) == 1024
    assert peak < len(sizes)  # bytes: five columns of 8 bytes a window of 64 blocks
