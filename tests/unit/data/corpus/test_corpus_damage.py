"""No damage passes without a word: each kind of it, done to real tars, beside what the stock reader makes of it."""

import json
import random
import shutil
import tarfile
from functools import partial

import pytest
import webdataset
from stream_configs import stream_config

from unsee_dist.data import Shards, Stream
from unsee_dist.data.corpus.store import Store
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare

CONFIG = partial(stream_config, seed=3, batch=25, max_tokens=12)
FIRST, SECOND = "shard-000000.tar", "shard-000001.tar"


@pytest.fixture
def copy(corpus, tmp_path):
    """A corpus of one's own to damage: blocks 0 and 1 in the first shard, block 2 in the second."""
    return shutil.copytree(corpus.path, tmp_path / "copy")


@pytest.fixture
def member(copy):
    """Where the second block of the first shard lies."""
    with tarfile.open(copy / FIRST) as tar:
        return tar.getmembers()[1]


def rewrite(path, change):
    data = bytearray(path.read_bytes())
    path.write_bytes(change(data) or data)


def flip(offset):
    return lambda data: data.__setitem__(offset, data[offset] ^ 1)


def read_all(path):
    shards = Shards(path)
    return [sentence for block in range(len(shards.blocks)) for sentence in shards.read(block)]


def read_by_stock(path):
    """What webdataset yields, however the file ends."""
    found = []
    for sample in webdataset.WebDataset([str(path)], shardshuffle=False, empty_check=False):
        found += sample["txt"].decode(errors="replace").split("\n")
    return found


def cut_at_member(data, member):
    return data[: member.offset]


def cut_in_header(data, member):
    return data[: member.offset + 100]


def flip_header(data, member):
    data[member.offset + 300] ^= 1


def zero_header(data, member):
    data[member.offset : member.offset + 512] = bytes(512)


def flip_payload(data, member):
    data[member.offset_data + 7] ^= 1


def flip_padding(data, member):
    data[member.offset_data + member.size] ^= 1


def flip_archive_end(data, _):
    data[-1] ^= 1


def append(data, _):
    return data + bytes(512)


@pytest.mark.parametrize(
    ("damage", "stock_reads"),
    [
        (cut_at_member, 1024),
        (cut_in_header, 1024),
        (flip_header, 1024),
        (zero_header, 1024),
        (flip_payload, 2048),
        (flip_padding, 2048),
        (flip_archive_end, 2048),
        (append, 2048),
    ],
)
def test_damage_is_named_where_the_stock_reader_says_nothing(copy, member, damage, stock_reads):
    whole = read_by_stock(copy / FIRST)
    assert member.size % 512  # there is padding to flip
    rewrite(copy / FIRST, lambda data: damage(data, member))
    stock = read_by_stock(copy / FIRST)
    assert len(stock) == stock_reads  # without an error, and with another text after a flipped payload
    assert (stock == whole) == (damage in (flip_padding, flip_archive_end, append))
    where = (
        rf"{FIRST} is damaged in block 1 at offset {member.offset}: .*expected .*found|should have .*found"
    )
    with pytest.raises(ValueError, match=where) as reason:
        read_all(copy)
    assert f"{FIRST} is damaged in block 1 at offset {member.offset}: " in str(reason.value)


def test_any_flipped_bit_is_found(copy):
    """Not only in the places one thinks of: 60 anywhere in the file."""
    size, draw = (copy / FIRST).stat().st_size, random.Random(1)
    for offset in [draw.randrange(size) for _ in range(60)]:
        rewrite(copy / FIRST, flip(offset))
        with pytest.raises(ValueError, match=rf"{FIRST} is damaged in block [01] at offset"):
            read_all(copy)
        rewrite(copy / FIRST, flip(offset))
    assert len(read_all(copy)) == 2500


def test_a_missing_shard_and_one_of_another_corpus(copy, text, tmp_path):
    prepare([str(text)], tmp_path / "other", PrepareSettings(seed=6, shard_sentences=2048))
    theirs = (tmp_path / "other" / FIRST).read_bytes()
    rewrite(copy / FIRST, lambda data: theirs.ljust(len(data), b"\0")[: len(data)])
    assert len(read_by_stock(copy / FIRST)) == 2048  # another corpus, without a word
    with pytest.raises(ValueError, match=rf"{FIRST} is damaged in block 0 at offset 0: expected .* found .*"):
        read_all(copy)
    (copy / FIRST).unlink()
    with pytest.raises(
        ValueError, match=rf"{FIRST} is damaged in block 0 at offset 0: .*should have .* found no such file"
    ):
        read_all(copy)


def test_an_index_that_believes_the_damage_is_refused(copy):
    """Checksums made to fit by hand: the fingerprint no longer does."""
    index = json.loads((copy / "index.json").read_text())
    index["shards"][0]["sha256"] = "0" * 64
    (copy / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index.json is damaged or was edited: its fingerprint"):
        Shards(copy, on_damage="skip")


def parts(path, tokenizer, ranks, workers, on_damage="skip"):
    """(ids, damaged) of every step of an epoch, as `ranks` ranks read them."""
    config, steps = CONFIG(workers=workers, batch=100), (1, 25)
    streams = [Stream(Shards(path, on_damage), tokenizer, config, rank, ranks) for rank in range(ranks)]
    read = [list(stream.batches(*steps)) for stream in streams]
    for same in zip(*read, strict=True):
        assert len({batch.damaged for batch in same}) == 1
    return [(sum((b.ids for b in same), ()), same[0].damaged) for same in zip(*read, strict=True)]


@pytest.mark.parametrize("damage", [flip_payload, cut_at_member])
def test_skipping_substitutes_the_same_on_every_layout_and_counts(copy, member, tokenizer, damage):
    order = parts(copy, tokenizer, 1, 0, "stop")
    assert parts(copy, tokenizer, 1, 0) == order  # nothing damaged: skip changes nothing
    rewrite(copy / FIRST, lambda data: damage(data, member))
    alone = parts(copy, tokenizer, 1, 0)
    assert parts(copy, tokenizer, 4, 0) == parts(copy, tokenizer, 2, 1) == alone
    assert sum(damaged for _, damaged in alone) == 1024
    standins = set()
    for (ids, damaged), (wanted, _) in zip(alone, order, strict=True):
        moved = [(i, j) for i, j in zip(ids, wanted, strict=True) if i != j]
        assert len(moved) == damaged
        assert all(1024 <= j < 2048 <= i < 2500 for i, j in moved)  # block 2 stands in for block 1
        standins |= {i for i, _ in moved}
    assert standins == set(range(2048, 2500))  # all of it, not one sentence again and again


def test_skipping_reads_the_text_of_the_ids_and_needs_one_sound_block(copy, member, tokenizer):
    rewrite(copy / FIRST, lambda data: flip_payload(data, member))
    shards = Shards(copy, on_damage="skip")
    batch = next(Stream(shards, tokenizer, CONFIG()).batches(1, 1))
    (micro_batch,) = batch.micro_batches
    for place, sentence_id in enumerate(batch.ids):
        wanted = tokenizer(shards.sentence(sentence_id), truncation=True, max_length=12)["input_ids"]
        assert micro_batch.input_ids[micro_batch.segment_ids == place].tolist() == wanted
    assert len(shards.head(2500)) == 2500 - 1024
    (copy / SECOND).unlink()
    rewrite(copy / FIRST, flip(600))
    with pytest.raises(ValueError, match=r"no block of .* can be read"):
        next(Stream(Shards(copy, on_damage="skip"), tokenizer, CONFIG()).batches(1, 1))


@pytest.mark.parametrize("prefix", ["", "file://", "simplecache::file://"])
def test_no_buffer_is_made_for_a_length_beyond_the_file(copy, prefix):
    data, store = (copy / FIRST).read_bytes(), Store(f"{prefix}{copy}")
    assert store.read(FIRST, 512, 512) == data[512:1024]
    assert store.read(FIRST, 512, 1 << 50) == data[512:]
    assert store.read(FIRST, len(data) + 1, 1 << 50) == b""
    assert store.read(FIRST) == data


def test_an_index_of_a_newer_version_is_not_called_damaged(copy):
    index = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps(index | {"format": 99}))
    with pytest.raises(ValueError, match=r"index.json has format 99.* reads up to 3.*Update unsee_dist"):
        Shards(copy)


def test_a_shard_that_is_a_link_to_itself_is_missing(copy):
    (copy / FIRST).unlink()
    (copy / FIRST).symlink_to(FIRST)
    (copy / "beside").symlink_to("beside")  # nobody's business
    with pytest.raises(ValueError, match=rf"{FIRST} is damaged.* found no such file"):
        Shards(copy)
