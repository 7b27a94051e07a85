"""Packing loses nothing and mixes nothing."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unsee_dist.data.corpus.ragged import ragged
from unsee_dist.data.stream import packing
from unsee_dist.data.stream.packing import attention_mask, bucket, pack

WIDTH = 16
token_lists = st.lists(st.lists(st.integers(1, 1000), min_size=1, max_size=WIDTH), min_size=1, max_size=40)


@given(tokens=token_lists, share=st.booleans())
@settings(max_examples=150, deadline=None)
def test_every_sentence_comes_back(tokens, share):
    micro_batch = pack(tokens, WIDTH, 0, share)
    assert micro_batch.sentences == len(tokens)
    assert micro_batch.tokens == sum(map(len, tokens))
    for number, sentence in enumerate(tokens):
        where = micro_batch.segment_ids == number
        assert where.any(dim=1).sum() == 1  # in one row
        assert micro_batch.input_ids[where].tolist() == sentence
        assert micro_batch.position_ids[where].tolist() == list(range(len(sentence)))
        columns = where.nonzero()[:, 1]
        assert columns.tolist() == list(range(int(columns[0]), int(columns[0]) + len(sentence)))
    padding = micro_batch.segment_ids == -1
    assert not micro_batch.input_ids[padding].any()
    assert not micro_batch.position_ids[padding].any()


@given(lengths=st.lists(st.integers(1, WIDTH), min_size=1, max_size=80))
@settings(max_examples=100, deadline=None)
def test_both_ways_to_pack_are_first_fit_decreasing(lengths):
    """Against the definition, a sentence at a time."""
    free, places = [], {}
    for sentence in sorted(range(len(lengths)), key=lambda s: -lengths[s]):
        row = next((r for r, room in enumerate(free) if room >= lengths[sentence]), len(free))
        if row == len(free):
            free.append(WIDTH)
        places[sentence] = row, WIDTH - free[row]
        free[row] -= lengths[sentence]
    micro_batch = pack([[7] * length for length in lengths], WIDTH, 0, True)
    for way in (packing._one_by_one, packing._length_by_length):
        rows, starts = way(np.array(lengths), WIDTH)
        assert {s: (rows[s], starts[s]) for s in places} == places
    for sentence, place in places.items():
        assert tuple((micro_batch.segment_ids == sentence).nonzero()[0].tolist()) == place


@given(tokens=token_lists)
@settings(max_examples=60, deadline=None)
def test_shapes_and_rows(tokens):
    shared, alone = pack(tokens, WIDTH, 0, True), pack(tokens, WIDTH, 0, False)
    assert shared.input_ids.shape[1] == WIDTH
    assert alone.input_ids.shape == (len(tokens), max(map(len, tokens)))
    assert alone.segment_ids[:, 0].tolist() == list(range(len(tokens)))
    best = -(-sum(map(len, tokens)) // WIDTH)
    assert best <= len(shared.input_ids) <= 11 * best / 9 + 1 + sum(len(t) > WIDTH / 2 for t in tokens)
    half_full = [(row != -1).sum() <= WIDTH / 2 for row in shared.segment_ids]
    assert sum(half_full) <= 1  # two of them would have been one row


@given(tokens=token_lists)
@settings(max_examples=60, deadline=None)
def test_the_mask_joins_a_sentence_and_nothing_else(tokens):
    segment_ids = pack(tokens, WIDTH, 0, True).segment_ids
    mask = attention_mask(segment_ids)
    rows, width = segment_ids.shape
    assert mask.shape == (rows, 1, width, width)
    assert mask.dtype == torch.bool
    for row in range(rows):
        for query in range(width):
            allowed = segment_ids[row] == segment_ids[row, query]
            assert torch.equal(mask[row, 0, query], allowed)
    assert mask.any(dim=-1).all()  # a row of softmax without any entry is NaN


def test_a_piece_survives_a_pickle_without_shared_memory():
    micro_batch = pack([[5, 6], [7]], 4, 0, True)
    again = pickle.loads(pickle.dumps(micro_batch))
    assert torch.equal(again.input_ids, micro_batch.input_ids)
    assert torch.equal(again.segment_ids, micro_batch.segment_ids)
    assert again.sentences == 2


@pytest.mark.parametrize(
    ("tokens", "says"), [([[1], []], "no tokens"), ([[1] * 17], "17 tokens and a row holds 16")]
)
def test_what_cannot_be_packed(tokens, says):
    with pytest.raises(ValueError, match=says):
        pack(tokens, WIDTH, 0, True)


def test_a_piece_goes_to_a_device_and_into_locked_memory_as_a_whole(monkeypatch):
    """ "meta" stands for a GPU, and a negative copy for memory that the system may not move."""
    micro_batch = pack([[5, 6], [7], [8, 9, 4]], 4, 0, True)
    moved = micro_batch.to("meta")
    assert {t.device.type for t in (moved.input_ids, moved.position_ids, moved.segment_ids)} == {"meta"}
    assert (moved.input_ids.shape, moved.sentences) == (micro_batch.input_ids.shape, 3)
    assert (moved.views, replace(micro_batch, views=2).to("meta").views) == (micro_batch.views, 2)
    assert micro_batch.input_ids.device.type == "cpu"
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: -1 - tensor)
    pinned = micro_batch.pin_memory()
    for name in ("input_ids", "position_ids", "segment_ids"):
        assert torch.equal(getattr(pinned, name), -1 - getattr(micro_batch, name))
    assert pinned.sentences == 3


def test_all_of_a_piece_survives_a_pickle():
    keys = np.array([4, 2**63 - 1, -(2**63)])
    micro_batch = pack([[5, 6], [7], [8, 9, 4]], 4, 0, True, keys)
    again = pickle.loads(pickle.dumps(micro_batch))
    assert again.keys.tolist() == keys.tolist()
    assert pickle.loads(pickle.dumps(pack([[5, 6]], 4, 0, True))).keys is None
    assert pickle.loads(pickle.dumps(pack([[5, 6], [7]], 4, 0, True, views=2))).views == 2
    for name in ("input_ids", "position_ids", "segment_ids"):
        assert torch.equal(getattr(again, name), getattr(micro_batch, name))
        assert getattr(again, name).dtype == torch.int64


@pytest.mark.parametrize("share", [False, True])
def test_sentences_end_to_end_are_packed_as_lists_are(share):
    lists = [[5, 6, 7], [8], [9, 4], [3, 3, 3, 3]]
    listed, flat = pack(lists, 6, 1, share), pack(ragged(lists), 6, 1, share)
    assert torch.equal(listed.input_ids, flat.input_ids)
    assert torch.equal(listed.segment_ids, flat.segment_ids)
    assert flat.sentences == 4


@pytest.mark.parametrize("share", [False, True])
def test_a_row_may_be_full_and_padding_has_the_tokenizers_id(share):
    micro_batch = pack([[5] * WIDTH, [6]], WIDTH, 99, share)
    assert micro_batch.input_ids.tolist() == [[5] * WIDTH, [6] + [99] * (WIDTH - 1)]
    assert micro_batch.segment_ids.tolist() == [[0] * WIDTH, [1] + [-1] * (WIDTH - 1)]


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (
            [],
            r"^a sentence has no tokens, so it has no embedding\. Use a tokenizer that adds its special tokens\.$",
        ),
        (
            [[1] * 17],
            r"^a sentence has 17 tokens and a row holds 16\. Truncate to model\.max_tokens = 16 first\.$",
        ),
    ],
)
def test_what_cannot_be_packed_says_what_to_do(tokens, says):
    with pytest.raises(ValueError, match=says):
        pack(tokens, WIDTH, 0, False)


def test_a_micro_batch_of_thousands_is_packed_as_a_small_one():
    """More sentences than one loop takes: each of them in one place, and first-fit decreasing leaves no row to spare."""
    lengths = np.random.default_rng(0).integers(1, WIDTH + 1, 3000)
    micro_batch = pack([[number + 1] * int(n) for number, n in enumerate(lengths)], WIDTH, 0, True)
    assert np.array_equal(np.bincount(micro_batch.input_ids.ravel(), minlength=3001)[1:], lengths)
    rows, starts = packing._one_by_one(lengths, WIDTH)
    first = micro_batch.segment_ids.numpy()[rows, starts]
    assert np.array_equal(first, np.arange(3000))


def test_numbers_of_rows_of_a_compiled_encoder() -> None:
    given = range(1, 5000)
    got = [bucket(rows) for rows in given]
    assert sorted(set(got))[:20] == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64]
    assert all(rows <= padded < 1.25 * rows for rows, padded in zip(given, got, strict=True))
    assert got == [min(b for b in set(got) if b >= rows) for rows in given]


@given(tokens=token_lists)
@settings(max_examples=60, deadline=None)
def test_few_shapes_are_the_same_rows_and_rows_of_padding(tokens):
    plain, few = pack(tokens, WIDTH, 0, True), pack(tokens, WIDTH, 0, True, few_shapes=True)
    rows = len(plain.input_ids)
    assert few.packed
    assert len(few.input_ids) == bucket(rows)
    for name in ("input_ids", "position_ids", "segment_ids"):
        assert torch.equal(getattr(few, name)[:rows], getattr(plain, name))
    assert not few.input_ids[rows:].any()
    assert (few.segment_ids[rows:] == -1).all()
    assert attention_mask(few.segment_ids).any(-1).all()  # a row of a mask without any gives NaN


def test_rows_of_one_sentence_each_have_any_number() -> None:
    alone = pack([[1]] * 9, WIDTH, 0, False, few_shapes=True)
    assert (len(alone.input_ids), alone.packed) == (9, False)


def test_what_is_packed_is_told_by_workers_and_devices() -> None:
    """Ten sentences in nine rows and one of padding: to count them would say that each has a row."""
    tokens = [[1] * 12] * 8 + [[1] * 8] * 2
    assert len(pack(tokens, WIDTH, 0, True).input_ids) == 9
    few = pack(tokens, WIDTH, 0, True, few_shapes=True)
    assert len(few.input_ids) == few.sentences == 10
    assert few.packed
    assert pickle.loads(pickle.dumps(few)).packed
    assert few.to("cpu").packed
