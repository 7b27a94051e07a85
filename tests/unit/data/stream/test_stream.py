"""One batch: the same sentences whoever reads them."""

from functools import partial

import numpy as np
import pytest
import torch
from stream_configs import stream_config

from unsee_dist.data import Shards, Stream
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare

CONFIG = partial(stream_config, seed=3, batch=24, max_tokens=12)


def whole(corpus, tokenizer, steps, **changes):
    return list(Stream(corpus, tokenizer, CONFIG(**changes)).batches(*steps))


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 0), (3, 0), (4, 0), (1, 2), (2, 1)])
def test_ranks_together_read_the_batch_of_one(corpus, tokenizer, ranks, workers):
    """Across an epoch's end: 2,500 sentences are 104.17 steps of 24."""
    alone = whole(corpus, tokenizer, (101, 108))
    config = CONFIG(workers=workers)
    parts = [list(Stream(corpus, tokenizer, config, rank, ranks).batches(101, 108)) for rank in range(ranks)]
    for number, batch in enumerate(alone):
        assert {part[number].step for part in parts} == {batch.step}
        assert sum((part[number].ids for part in parts), ()) == batch.ids
        assert sum(part[number].tokens for part in parts) == batch.tokens


def test_an_epoch_reads_every_sentence_once(corpus, tokenizer):
    batches = whole(corpus, tokenizer, (1, 250), batch=20, micro_batch=7)
    ids = np.concatenate([batch.ids for batch in batches])
    assert np.array_equal(np.sort(ids[:2500]), np.arange(2500))
    assert np.array_equal(np.sort(ids[2500:]), np.arange(2500))
    assert not np.array_equal(ids[:2500], ids[2500:])


@pytest.mark.parametrize("share", [True, False])
def test_pieces_hold_the_sentences_of_the_ids(corpus, tokenizer, share):
    (batch,) = whole(corpus, tokenizer, (7, 7), micro_batch=5, pack=share)
    assert [micro_batch.sentences for micro_batch in batch.micro_batches] == [5, 5, 5, 5, 4]
    read = [
        micro_batch.input_ids[micro_batch.segment_ids == i]
        for micro_batch in batch.micro_batches
        for i in range(micro_batch.sentences)
    ]
    for sentence_id, tokens in zip(batch.ids, read, strict=True):
        expected = tokenizer(corpus.sentence(sentence_id), truncation=True, max_length=12)["input_ids"]
        assert tokens.tolist() == expected
    assert batch.tokens == sum(map(len, read))


@pytest.mark.parametrize("workers", [0, 2])
def test_asking_for_a_step_is_resuming_at_it(corpus, tokenizer, workers):
    """Also on one stream, whose workers stay, after an iteration that was left in the middle."""
    stream = Stream(corpus, tokenizer, CONFIG(workers=workers))
    expected = {batch.step: batch.ids for batch in whole(corpus, tokenizer, (1, 12))}
    left = stream.batches(1, 12)
    assert next(left).ids == expected[1]
    left.close()
    assert {batch.step: batch.ids for batch in stream.batches(5, 12)} == {
        t: expected[t] for t in range(5, 13)
    }
    assert list(stream.batches(4, 3)) == []


def test_the_sample_is_the_head_of_the_corpus(corpus, tokenizer):
    sample = Stream(corpus, tokenizer, CONFIG()).sample(1500)
    assert sample == [corpus.sentence(i) for i in range(1500)]


def test_moving_a_batch_keeps_it(corpus, tokenizer):
    (batch,) = whole(corpus, tokenizer, (1, 1))
    moved = batch.to("cpu")
    assert moved.ids == batch.ids
    assert torch.equal(moved.micro_batches[0].input_ids, batch.micro_batches[0].input_ids)


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_ends_the_iteration_with_its_sentence(corpus, tokenizer, tmp_path, workers):
    for file in corpus.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    shard = tmp_path / "shard-000000.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    stream = Stream(Shards(tmp_path), tokenizer, CONFIG(workers=workers))
    with pytest.raises(ValueError, match=r"^\S*shard-000000.tar is damaged in block 0 at offset 0: expected"):
        list(stream.batches(1, 105))


def test_batches_that_cannot_be(corpus, tokenizer):
    with pytest.raises(ValueError, match=r"train.batch = 24 cannot be split over 5 ranks. Use 20 or 25"):
        Stream(corpus, tokenizer, CONFIG(), 0, 5)
    with pytest.raises(ValueError, match=r"train.batch = 2 cannot be split over 5 ranks. Use 5"):
        Stream(corpus, tokenizer, CONFIG(batch=2), 0, 5)
    with pytest.raises(
        ValueError, match=r"train.batch = 4096 is more than the 2500 sentences of .* Use at most 2500, or"
    ):
        Stream(corpus, tokenizer, CONFIG(batch=4096))
    with pytest.raises(ValueError, match=r"Use at most 2496, or prepare a larger corpus"):  # of 8 ranks
        Stream(corpus, tokenizer, CONFIG(batch=4096), 0, 8)


def test_a_corpus_that_has_no_batch(tmp_path, tokenizer):
    (tmp_path / "one.txt").write_text("The only sentence there is.\n")
    prepare([str(tmp_path / "one.txt")], tmp_path / "one", PrepareSettings())
    with pytest.raises(ValueError, match=r"is more than the 1 sentences of \S+\. Prepare a larger corpus\.$"):
        Stream(Shards(tmp_path / "one"), tokenizer, CONFIG(batch=2))
