"""The laws of order and stream over random corpora, windows, lanes, batches, ranks, workers and places to resume."""

import os
import signal
import tracemalloc
from collections import deque
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_configs import stream_config

from unsee_dist.bench.reading import read_per_used
from unsee_dist.data import Stream
from unsee_dist.data.corpus.lanes import Lanes
from unsee_dist.data.corpus.order import Order, key, permute
from unsee_dist.data.corpus.sizes import BlockSizes
from unsee_dist.data.stream.mask_keys import mask_keys
from unsee_dist.data.stream.parts import Parts, cut_slice
from unsee_dist.errors import ExitCode, exit_code_of, foreseen


class Made:
    """A corpus by rule: blocks of given sizes, the sentence of id i is i spelt in words, its own window and lanes.

    log: a file that gets a line for each block that is read, by any process.
    """

    on_damage, fingerprint, path = "stop", "made", "made"

    def __init__(self, sizes, window=None, lanes=None, log=None):
        self.sizes, self.window, self.lanes, self.log = np.array(sizes), window, lanes, log
        self.ends = np.cumsum(self.sizes)
        self.sentences = int(self.ends[-1])
        self.reads = []

    def order(self, seed, batch):
        number = min(self.lanes, batch) if self.lanes else None
        lanes = Lanes(np.arange(batch), batch, len(self.sizes), number)
        return Order(BlockSizes.of(self.sizes), seed, lanes, self.window)

    def tokens(self, *_):
        return None

    def find(self, ids):
        blocks = np.searchsorted(self.ends, ids, side="right")
        return blocks, ids - self.ends[blocks] + self.sizes[blocks]

    def read(self, block):
        self.reads.append(block)
        if self.log:
            with self.log.open("a") as file:
                file.write(f"{os.getpid()} {block}\n")
        first = self.ends[block] - self.sizes[block]
        return [spelt(i) for i in range(first, first + self.sizes[block])]


def spelt(number):
    return " ".join(
        ["ba", "be", "bi", "bo", "bu", "da", "de", "di", "do", "du"][int(digit)] for digit in str(number)
    )


def oracle(sizes, seed, window, epochs, batch, lanes):
    """All ids in order, by lists: the definition of the order, written out."""
    firsts = [end - size for end, size in zip(accumulate(sizes), sizes, strict=True)]
    found, n, lanes = [], sum(sizes), min(lanes, batch)
    for epoch in range(epochs):
        blocks, sequence = permute(np.arange(len(sizes)), len(sizes), key(seed, epoch, 0)).tolist(), []
        for number, start in enumerate(range(0, len(blocks), window)):
            ids = [firsts[b] + line for b in blocks[start : start + window] for line in range(sizes[b])]
            places = permute(np.arange(len(ids)), len(ids), key(seed, epoch, 1, number)).tolist()
            sequence += [ids[place] for place in places]
        lane_of = [p % batch * lanes // batch for p in range(epoch * n, (epoch + 1) * n)]
        sequence = iter(sequence)
        queues = [[next(sequence) for _ in range(lane_of.count(lane))] for lane in range(lanes)]
        found += [queues[lane].pop(0) for lane in lane_of]
    return found


layouts = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.integers(1, 30), min_size=1, max_size=12),
        "window": st.integers(1, 6),
        "lanes": st.integers(1, 60),
        "seed": st.integers(0, 2**63 - 1),
        "part": st.integers(1, 5),  # sentences a step in twelfths: batches of 12 to 60 split over many ranks
    }
)


def parts_of_step(corpus, tokenizer, seed, batch, *layout):
    """layout: rank, ranks, and workers where there are any."""
    rank, ranks, workers = (*layout, 0)[:3]
    config = stream_config(seed=seed, batch=batch, micro_batch=5, max_tokens=16, workers=workers)
    return Parts(corpus, tokenizer, config, rank, ranks)


@given(layout=layouts, data=st.data())
@settings(max_examples=30, deadline=None)
def test_resumed_at_every_step_on_changing_layouts_it_is_the_oracle(tokenizer, layout, data):
    """Each step read by another number of ranks, from scratch: as if killed and resumed before every one."""
    sizes, batch = layout["sizes"], 12 * layout["part"]
    corpus = Made(sizes, layout["window"], layout["lanes"])
    steps = min(6, 3 * corpus.sentences // batch) or 1
    if batch > corpus.sentences:
        return  # refused
    epochs = steps * batch // corpus.sentences + 1
    expected = oracle(sizes, layout["seed"], layout["window"], epochs, batch, layout["lanes"])
    for step in range(1, steps + 1):
        ranks = data.draw(st.sampled_from([1, 2, 3, 4, 6, 12]), label=f"ranks of step {step}")
        config = stream_config(seed=layout["seed"], batch=batch, micro_batch=5, max_tokens=16)
        parts = [
            next(Stream(corpus, tokenizer, config, rank, ranks).batches(step, step)) for rank in range(ranks)
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


@given(layout=layouts, ranks=st.sampled_from([1, 3, 4]), workers=st.integers(0, 4))
@settings(max_examples=30, deadline=None)
def test_the_union_over_ranks_and_workers_is_an_exact_permutation_of_every_epoch(
    tokenizer, layout, ranks, workers
):
    """Tail included: epochs end inside batches, and none is short, padded or repeated."""
    corpus, batch = Made(layout["sizes"], layout["window"], layout["lanes"]), 12 * layout["part"]
    epochs = -(-2 * batch // corpus.sentences) + 1
    ranks = [
        parts_of_step(corpus, tokenizer, layout["seed"], batch, rank, ranks, workers) for rank in range(ranks)
    ]
    steps = -(-epochs * corpus.sentences // batch)
    ids = np.concatenate(
        [
            each.ids(step, n)[0]
            for step in range(1, steps + 1)
            for each in ranks
            for n in range(len(each.parts))
        ]
    )
    assert is_permutation_of_every_epoch(ids, corpus.sentences, epochs)


def is_permutation_of_every_epoch(ids, n, epochs):
    return all(
        np.array_equal(np.sort(ids[epoch * n : (epoch + 1) * n]), np.arange(n)) for epoch in range(epochs)
    )


def test_lanes_that_are_keyed_by_ranks_break_the_law(tokenizer):
    """The control: as many lanes as ranks. Each layout reads every sentence once; a run that changes its layout does not, and
    its batches are others."""
    sizes, batch, seed, steps = [40] * 30, 12, 3, 100
    assert steps * batch == sum(sizes)

    def read(ranks, chosen, lanes=None):
        corpus = Made(sizes, 4, lanes or ranks)
        each = [parts_of_step(corpus, tokenizer, seed, batch, rank, ranks) for rank in range(ranks)]
        return np.concatenate([part.ids(step, 0)[0] for step in chosen for part in each])

    first, second = range(1, 51), range(51, 101)
    for ranks in (2, 3):
        assert is_permutation_of_every_epoch(read(ranks, range(1, 101)), sum(sizes), 1)
    assert not np.array_equal(np.sort(read(2, [7])), np.sort(read(3, [7])))
    assert not is_permutation_of_every_epoch(np.append(read(2, first), read(3, second)), sum(sizes), 1)
    assert is_permutation_of_every_epoch(np.append(read(2, first, 6), read(3, second, 6)), sum(sizes), 1)


class NotingOrder:
    """An order that notes the positions that it is asked for."""

    def __init__(self, order):
        self.order, self.positions = order, []

    def ids(self, positions):
        self.positions.append(positions)
        return self.order.ids(positions)


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (4, 0), (4, 2), (12, 3)])
def test_a_rank_computes_the_ids_of_its_slice_only(tokenizer, ranks, workers):
    """And each once. All ranks and workers together compute the steps, and the steps ahead, exactly."""
    corpus, batch, total = Made([512] * 60), 24, 0
    for rank in range(ranks):
        own = parts_of_step(corpus, tokenizer, 1, batch, rank, ranks, workers)
        for part in range(len(own.parts)):
            own.order = asked = NotingOrder(corpus.order(1, batch))
            for step in range(1, 101):
                own.ids(step, part)
            positions = np.concatenate(asked.positions)
            places = positions % batch
            assert places.min() >= rank * batch // ranks
            assert places.max() < (rank + 1) * batch // ranks
            assert len(np.unique(positions)) == len(positions)
            total += (positions < 100 * batch).sum()
    assert total == 100 * batch


def test_an_order_that_drops_the_tail_or_repeats_is_caught():
    """The control: whole batches per epoch, and an epoch padded by its first sentences, as samplers do it."""
    n, batch = 103, 12
    ids = Made([40, 40, 23], 2, 3).order(1, batch).ids(np.arange(n))
    dropped, padded = ids[: n // batch * batch], np.append(ids, ids[: -n % batch])
    for wrong in (dropped, padded):
        assert not np.array_equal(np.sort(wrong), np.arange(n))


@pytest.mark.parametrize(("window", "lanes"), [(8, 1), (2, 4), (1, 20)])
def test_an_epoch_reads_each_block_about_once(tokenizer, window, lanes):
    """What locality is for: blocks are read once a window, and both ends of a lane fall into one."""
    corpus, (lane_ends, steps) = Made([64] * 40, window, lanes), (lanes * window, 128)
    own = parts_of_step(corpus, tokenizer, 5, 20, 0, 1)
    for step in range(1, steps + 1):
        own[step, 0]
    assert 40 <= len(corpus.reads) <= 40 + lane_ends


READERS = [(1, 0), (2, 0), (4, 2), (8, 3), (24, 2), (3, 4)]


def counted(corpus, tokenizer, batch, ranks, workers, steps):
    """Sentences that are read for one that is used, as the readers of all ranks and workers do it."""
    corpus.reads.clear()
    for rank in range(ranks):
        own = parts_of_step(corpus, tokenizer, 5, batch, rank, ranks, workers)
        for part in range(len(own.parts)):
            own.texts = type(own.texts)(corpus, own.texts._limit)  # a process of its own
            for step in range(1, steps + 1):
                own[step, part]
    return sum(corpus.sizes[block] for block in corpus.reads) / (steps * batch)


@pytest.mark.parametrize(("ranks", "workers"), READERS)
@pytest.mark.parametrize(("batch", "lanes", "window"), [(24, 24, 1), (48, 10, 1), (24, 3, 3)])
def test_the_reads_that_are_computed_are_those_that_are_counted(
    tokenizer, ranks, workers, batch, lanes, window
):
    """Over an epoch with short blocks. Where readers share a lane, or windows have several blocks, one may need nothing of a few
    sentences at a lane's ends."""
    corpus = Made([32] * (lanes * 9) + [5] * 9 + [3], window, lanes)
    steps, rest = divmod(corpus.sentences, batch)
    assert rest == 0
    computed = read_per_used(corpus.order(5, batch), batch, ranks, workers)
    found = counted(corpus, tokenizer, batch, ranks, workers, steps)
    if lanes == batch:
        assert found == pytest.approx(computed, rel=1e-12)
    assert 0.85 * computed <= found <= computed * (1 + 1e-12)


def test_the_processes_of_a_stream_read_what_is_computed(tokenizer, tmp_path):
    """Real workers: each serves its own lanes, over two calls of `batches`."""
    corpus = Made([16] * 24 * 5, 1, 24, tmp_path / "reads")
    steps = corpus.sentences // 24
    config = stream_config(seed=5, batch=24, max_tokens=16, workers=2)
    stream = Stream(corpus, tokenizer, config)
    ids = [i for batch in stream.batches(1, steps // 2) for i in batch.ids]
    ids += [i for batch in stream.batches(steps // 2 + 1, steps) for i in batch.ids]
    assert sorted(ids) == list(range(corpus.sentences))
    reads = [tuple(map(int, line.split())) for line in (tmp_path / "reads").read_text().splitlines()]
    assert len({process for process, _ in reads}) == 2
    computed = read_per_used(corpus.order(5, 24), 24, 1, 2)
    assert 16 * len(reads) / corpus.sentences == pytest.approx(computed)
    assert computed < 1.25


@pytest.mark.parametrize(
    ("edges", "cuts"),
    [
        ([8, 19, 33], [0, 8, 19, 33, 40]),  # a lane each
        ([8, 11, 19, 24, 33], [0, 11, 19, 33, 40]),  # the nearest
        ([8, 33], [0, 10, 20, 30, 40]),  # too few lanes: they are shared
        ([-5, 0, 40, 60], [0, 10, 20, 30, 40]),  # of other ranks
    ],
)
def test_workers_share_a_slice_at_the_edges_of_lanes(edges, cuts):
    assert cut_slice(0, 40, 4, np.array(edges)) == cuts


def test_a_killed_worker_is_a_sentence(tokenizer, tmp_path):
    corpus = Made([16] * 24 * 5, 1, 24, tmp_path / "reads")
    batches = Stream(corpus, tokenizer, stream_config(seed=5, batch=24, max_tokens=16, workers=1)).batches(
        1, 10_000
    )
    next(batches)
    os.kill(int((tmp_path / "reads").read_text().split()[0]), signal.SIGKILL)
    with pytest.raises(ChildProcessError) as ended:
        deque(batches, maxlen=0)
    assert "A process of data.workers was killed" in str(foreseen(ended.value))


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGTERM])
def test_a_worker_that_crashed_is_a_bug(number, tokenizer, tmp_path):
    corpus = Made([16] * 24 * 5, 1, 24, tmp_path / "reads")
    batches = Stream(corpus, tokenizer, stream_config(seed=5, batch=24, max_tokens=16, workers=1)).batches(
        1, 10_000
    )
    next(batches)
    os.kill(int((tmp_path / "reads").read_text().split()[0]), number)
    with pytest.raises(RuntimeError, match=r"exited unexpectedly|killed by signal") as ended:
        deque(batches, maxlen=0)
    assert exit_code_of(ended.value) is ExitCode.BUG
    assert f"[{-number}]" in "".join(getattr(ended.value, "__notes__", []))


@given(
    ranks=st.integers(1, 1024),
    workers=st.integers(0, 4),
    each=st.one_of(st.integers(1, 12), st.integers(1, 3000)),
    sentences=st.integers(10**8, 10**10),
)
@settings(max_examples=150, deadline=None)
def test_at_most_two_sentences_are_read_for_one_that_is_used(ranks, workers, each, sentences):
    batch, full = ranks * each, sentences // 1024
    sizes = BlockSizes(full + 1, 1024, np.array([full]), np.array([1024 - sentences % 1024]))
    assert read_per_used(Order.of(sizes, 5, batch), batch, ranks, workers) <= 2


def test_one_lane_reads_more_for_many_ranks():
    """The control, and the order without lanes: every reader reads everything."""
    sizes = BlockSizes.of(np.full(10**5, 1024))
    without = Order(sizes, 5, Lanes(np.arange(1024), 1024, len(sizes), 1))
    assert read_per_used(without, 1024, 8, 2) == pytest.approx(16)


@pytest.mark.parametrize("position", [0, 3_123_456_789, 11_999_999_000])
def test_four_billion_sentences_are_sought_in_a_few_megabytes(position):
    """How long it takes is `make bench`'s to say."""
    sizes = BlockSizes.of(np.full(4_000_000_000 // 1024, 1024))
    tracemalloc.start()
    ids = Order.of(sizes, 7, 1024).ids(np.arange(position, position + 1024))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(ids.tolist())) == 1024
    assert peak < 1 << 20
