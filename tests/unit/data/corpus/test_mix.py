"""Several corpora in fixed shares, exactly; corpora behind a URL, with a bounded cache; tokens made beforehand."""

import json
import shutil
from functools import partial

import fsspec
import numpy as np
import pytest
import torch
from stream_configs import stream_config
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from unsee_dist.config.sections import DataSettings
from unsee_dist.data import Mix, Shards, Stream, open_corpus
from unsee_dist.data.corpus import mix, store
from unsee_dist.data.corpus.mix import PERIOD, MixOrder, Pattern
from unsee_dist.data.corpus.sizes import BlockSizes
from unsee_dist.data.corpus.tokenise import publish, tokenise
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare
from unsee_dist.data.processes import worker_pool
from unsee_dist.errors import TransientError

CONFIG = partial(stream_config, seed=3, batch=40, max_tokens=9)


@pytest.fixture(scope="module")
def small(make_sentence, tmp_path_factory):
    """300 other sentences."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "t.txt").write_text("\n".join(make_sentence(i) for i in range(5000, 5300)))
    prepare([str(folder / "t.txt")], folder / "out", PrepareSettings())
    return Shards(folder / "out")


def ids_of(corpus, tokenizer, steps, ranks=1, **changes):
    config = CONFIG(**changes)
    streams = [Stream(corpus, tokenizer, config, rank, ranks).batches(*steps) for rank in range(ranks)]
    return [sum((batch.ids for batch in same), ()) for same in zip(*streams, strict=True)]


def same_batches(one, other):
    for a, b in zip(one, other, strict=True):
        assert (a.step, a.ids, a.tokens) == (b.step, b.ids, b.tokens)
        for first, second in zip(a.micro_batches, b.micro_batches, strict=True):
            assert torch.equal(first.input_ids, second.input_ids)
            assert torch.equal(first.segment_ids, second.segment_ids)
    return True


def test_a_mix_keeps_its_shares_and_every_corpus_its_epochs(corpus, small, tokenizer):
    """Shares 3 to 1 of 2,500 and 300 sentences: exact every 1,024 positions, epochs exact in each corpus."""
    mix = Mix([corpus, small], [3, 1])
    ids = np.concatenate(ids_of(mix, tokenizer, (1, 128)))  # five cycles
    of_small = ids >= 2500
    assert [int(part.sum()) for part in of_small.reshape(5, 1024)] == [256] * 5
    for which, n in ((~of_small, 2500), (of_small, 300)):
        own = ids[which] - (0 if n == 2500 else 2500)
        for epoch in range(len(own) // n):
            assert np.array_equal(np.sort(own[epoch * n : (epoch + 1) * n]), np.arange(n))
    assert 0 < of_small[:40].sum() < 40  # mixed inside a batch


def test_a_mix_is_the_same_on_every_layout_and_at_every_place(corpus, small, tokenizer):
    mix = Mix([corpus, small], [3, 1])
    alone = ids_of(mix, tokenizer, (1, 30))
    assert ids_of(mix, tokenizer, (1, 30), ranks=4) == alone
    assert ids_of(mix, tokenizer, (17, 30), ranks=2) == alone[16:]
    assert ids_of(mix, tokenizer, (1, 30), seed=4) != alone
    batch = next(Stream(mix, tokenizer, CONFIG()).batches(3, 3))
    (micro_batch,) = batch.micro_batches
    for place, i in enumerate(batch.ids):
        expected = corpus.sentence(i) if i < 2500 else small.sentence(i - 2500)
        wanted = tokenizer(expected, truncation=True, max_length=9)["input_ids"]
        assert micro_batch.input_ids[micro_batch.segment_ids == place].tolist() == wanted


def test_each_corpus_of_a_mix_has_lanes_on_its_own_places(monkeypatch):
    """A rank's places read their own part of each corpus; with a pattern that never repeats, all of both."""
    sizes, batch, seed = [BlockSizes.of(np.full(blocks, 32)) for blocks in (400, 200)], 24, 5
    firsts = (0, 400 * 32)
    for period, apart in ((PERIOD, True), (2000, False)):
        monkeypatch.setattr(mix, "PERIOD", period)
        order = MixOrder(sizes, firsts, Pattern([3, 1], seed, batch), seed)
        steps = np.arange(150)[:, None] * batch
        read = [set((order.ids((steps + place).ravel()) // 32).tolist()) for place in range(batch)]
        shared = sum(map(len, read)) / len(set.union(*read))
        assert (shared < 1.5) == apart
        assert (len(order.edges()) > 0) == apart
        whole = order.ids(np.arange(600 * 32))
        assert np.array_equal(order.ids(np.arange(3, 600 * 32, 7)), whole[3::7])


def test_a_mix_is_written_in_words(corpus, small):
    mix = open_corpus(DataSettings(mix=f"3 {corpus.path}, 1 {small.path}"))
    assert mix.sentences == 2800
    assert mix.fingerprint == Mix([corpus, small], [3, 1]).fingerprint
    assert mix.fingerprint != Mix([corpus, small], [1, 3]).fingerprint
    assert len(mix.head(100)) == 100
    assert open_corpus(DataSettings(shards=str(corpus.path))).fingerprint == corpus.fingerprint
    for wrong in (",", "3", f"0 {corpus.path}", f"x {corpus.path}", f"1 {corpus.path}, 2 {corpus.path}"):
        with pytest.raises(ValueError, match=r"data.mix = .* cannot be read as a mix .* Write whole shares"):
            open_corpus(DataSettings(mix=wrong))
    with pytest.raises(ValueError, match="shares that sum to more than 65,536"):
        open_corpus(DataSettings(mix=f"1000000 {corpus.path}, 1 {small.path}"))


@pytest.fixture
def remote(corpus, tmp_path, monkeypatch):
    """The corpus behind a URL, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    for file in corpus.path.iterdir():
        memory.pipe(f"/corpus/{file.name}", file.read_bytes())
    yield memory
    memory.rm("/corpus", recursive=True)


def test_remote_shards_are_the_same_corpus(corpus, remote, tokenizer, tmp_path):
    far = Shards("memory://corpus")
    assert far.fingerprint == corpus.fingerprint
    assert ids_of(far, tokenizer, (1, 70)) == ids_of(corpus, tokenizer, (1, 70))
    assert len(list((tmp_path / "cache").rglob("*-?"))) == 3
    remote.pipe("/corpus/shard-000000.tar", b"x" * remote.size("/corpus/shard-000000.tar"))
    assert Shards("memory://corpus").read(0) == corpus.read(0)  # kept, and still right
    for kept in (tmp_path / "cache").rglob("*-0"):
        kept.write_bytes(b"damaged here")
    with pytest.raises(
        ValueError, match=r"memory://corpus/shard-000000.tar is damaged in block 0 at offset 0"
    ):
        Shards("memory://corpus").read(0)
    remote.rm("/corpus/shard-000001.tar")
    with pytest.raises(ValueError, match=r"shard-000001.tar .* should have .* found no such file"):
        Shards("memory://corpus")
    with pytest.raises(ValueError, match=r"data.shards = memory://nothing does not exist"):
        Shards("memory://nothing")


def test_a_network_that_fails_now_and_then_is_asked_again(corpus, remote, tokenizer, monkeypatch):
    """Not for ever, and what cannot be reached is no damage: skipping it would part the ranks."""
    shards, failures, fetch = Shards("memory://corpus", on_damage="skip", cache_gb=0), [2], remote.cat_file

    def flaky(_, *args, **kwargs):
        failures[0] -= 1
        if failures[0] >= 0:
            raise TimeoutError("no answer")
        return fetch(*args, **kwargs)

    monkeypatch.setattr(store, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(type(remote), "cat_file", flaky)
    assert shards.read(1) == corpus.read(1)
    stream = Stream(shards, tokenizer, CONFIG())
    failures[0] = 10**9
    with pytest.raises(TransientError, match=r"shard-00000\d.tar cannot be reached \(no answer\)"):
        next(stream.batches(1, 1))


def test_the_cache_is_bounded_and_keeps_what_was_read_last(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SCAN_EVERY", 0)
    (tmp_path / "a file").touch()  # where nothing can be kept, nothing is, and the run goes on
    store.BlockCache(tmp_path / "a file" / "cache", 10_000).put("x", b"1")
    cache = store.BlockCache(tmp_path / "cache", 10_000)
    for number in range(50):
        cache.put(str(number), bytes(1000))
        assert cache.get("0") is not None  # read again and again
        assert sum(file.stat().st_size for file in (tmp_path / "cache").iterdir()) <= 10_000
    assert cache.get("49") is not None
    assert cache.get("3") is None


@pytest.fixture
def tokenised(corpus, tokenizer, tmp_path):
    out = shutil.copytree(corpus.path, tmp_path / "tokenised")
    with worker_pool(1) as work:
        tokenise(out, tokenizer, 9, work)
    summary = publish(out, tokenizer, 9)
    lengths = [len(tokenizer(corpus.sentence(i))["input_ids"]) for i in range(0, 2500, 50)]
    assert min(lengths) < 9 or max(lengths) > 9
    assert summary.sentences == 2500
    assert summary.tokens == sum(
        len(ids)
        for b in range(3)
        for ids in tokenizer(corpus.read(b), truncation=True, max_length=9)["input_ids"]
    )
    assert summary.cut == sum(
        len(ids) > 9 for b in range(3) for ids in tokenizer(corpus.read(b))["input_ids"]
    )
    return out


@pytest.mark.parametrize("share", [True, False])
def test_prepared_tokens_give_the_batches_of_the_text(corpus, tokenised, tokenizer, share):
    config = CONFIG(pack=share, micro_batch=7)
    ready, text = Stream(Shards(tokenised), tokenizer, config), Stream(corpus, tokenizer, config)
    assert Shards(tokenised).tokens(tokenizer, 9) is not None
    assert same_batches(ready.batches(60, 70), text.batches(60, 70))


def test_tokens_are_never_used_with_another_tokenizer_length_or_corpus(tokenised, tokenizer, small):
    shards = Shards(tokenised)
    assert shards.tokens(tokenizer, 10) is None
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    description["model"]["vocab"] |= {"ba": 6, "be": 5}  # two words change places
    changed = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(description)))
    assert shards.tokens(changed, 9) is None
    tokenizer(["used once"], truncation=True, max_length=5)  # leaves its length behind in the tokenizer
    assert shards.tokens(tokenizer, 9) is not None
    (folder,) = tokenised.glob("tokens-*")
    shutil.copytree(folder, small.path / folder.name)
    with pytest.raises(
        ValueError,
        match=r"has fingerprint = .*, and this run needs .*. Delete .*: the text is then tokenised",
    ):
        Shards(small.path).tokens(tokenizer, 9)
    shutil.rmtree(small.path / folder.name)


def test_damaged_tokens_are_named(tokenised, tokenizer):
    (file,) = [path for path in tokenised.glob("tokens-*/*.tokens") if "000000" in path.name]
    data = bytearray(file.read_bytes())
    data[5000] ^= 1
    file.write_bytes(data)
    with pytest.raises(
        ValueError, match=r"shard-000000.tokens is damaged in block 0 at offset 0: expected .* found"
    ):
        list(Stream(Shards(tokenised), tokenizer, CONFIG()).batches(1, 62))
