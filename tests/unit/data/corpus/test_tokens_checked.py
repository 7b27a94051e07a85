"""The index of tokens is checked against the corpus's own, and both against what was written."""

import json
import shutil
import tarfile

import numpy as np
import pytest
import xxhash
import zstandard
from typer.testing import CliRunner

from unsee_dist.cli import app
from unsee_dist.data import Shards
from unsee_dist.data.corpus.tokenise import publish, tokenise
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare
from unsee_dist.data.processes import worker_pool
from unsee_dist.errors import UserError
from unsee_dist.files.trees import sealed

LENGTH = 9


@pytest.fixture(scope="module")
def made(corpus, tokenizer, tmp_path_factory):
    out = shutil.copytree(corpus.path, tmp_path_factory.mktemp("tokens") / "corpus")
    with worker_pool(1) as work:
        tokenise(out, tokenizer, LENGTH, work)
    publish(out, tokenizer, LENGTH)
    return out


@pytest.fixture
def tokenised(made, tmp_path):
    return shutil.copytree(made, tmp_path / "corpus")


def index_of(corpus):
    (path,) = corpus.glob("tokens-*/index.json")
    return path


def edit(path, change, seal):
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(sealed(tree) if seal else tree))


def read_all(corpus, tokenizer):
    tokens = Shards(corpus).tokens(tokenizer, LENGTH)
    assert tokens is not None
    return [tokens.read(block) for block in range(3)]


def fewer_sentences(tree):
    tree["shards"][0]["blocks"]["sentences"][0] -= 1


def sentences_moved(tree):
    tree["shards"][0]["blocks"]["sentences"] = [1022, 1024]


def shards_swapped(tree):
    tree["shards"].reverse()


def a_block_of_another_place(tree):
    columns = tree["shards"][0]["blocks"]
    for column in columns.values():
        column.reverse()


def more_tokens(tree):
    tree["shards"][1]["tokens"] += 1


def a_shard_less(tree):
    tree["shards"].pop()


def half_the_width(tree):
    tree["dtype"] = "<u4"


def a_huge_length(tree):
    tree["shards"][0]["blocks"]["length"][0] = 1 << 70


def a_negative_offset(tree):
    tree["shards"][0]["blocks"]["offset"][1] = -5


def a_file_elsewhere(tree):
    tree["shards"][0]["name"] = "../../x"


CHANGES = [
    *(fewer_sentences, sentences_moved, shards_swapped, a_block_of_another_place, more_tokens),
    *(a_shard_less, half_the_width, a_huge_length, a_negative_offset, a_file_elsewhere),
]


@pytest.mark.parametrize("seal", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_an_edited_index_of_tokens_is_refused_also_when_its_digest_was_made_anew(
    tokenised, tokenizer, change, seal
):
    edit(index_of(tokenised), change, seal)
    with pytest.raises(UserError, match=r"tokens-.*/index.json is damaged or was edited: .*Delete .*tokens-"):
        read_all(tokenised, tokenizer)
    shown = CliRunner().invoke(app, ["shards", "verify", str(tokenised)])
    assert isinstance(shown.exception, UserError)
    assert "is damaged or was edited" in str(shown.exception)


def test_every_changed_digit_of_the_index_is_found(tokenised, tokenizer):
    path = index_of(tokenised)
    whole, before = path.read_text(), read_all(tokenised, tokenizer)
    digits = [place for place, letter in enumerate(whole) if letter.isdigit()]
    for place in digits[:: max(1, len(digits) // 80)]:
        other = str((int(whole[place]) + 1) % 10)
        path.write_text(whole[:place] + other + whole[place + 1 :])
        with pytest.raises(UserError, match=r"index\.json"):
            read_all(tokenised, tokenizer)
    path.write_text(whole)
    assert all(
        np.array_equal(a.ids, b.ids) for a, b in zip(before, read_all(tokenised, tokenizer), strict=True)
    )


def test_lengths_that_do_not_fill_their_block_are_no_tokens(tokenised, tokenizer):
    """Edited with all its checksums."""
    path = index_of(tokenised)
    tree = json.loads(path.read_text())
    shard, columns = tree["shards"][0], tree["shards"][0]["blocks"]
    file = path.parent / shard["name"]
    data = bytearray(file.read_bytes())
    data[0] += 1
    file.write_bytes(data)
    columns["xxh3"][0] = xxhash.xxh3_64_hexdigest(bytes(data[: columns["length"][0]]))
    path.write_text(json.dumps(sealed(tree)))
    with pytest.raises(UserError, match=r"shard-000000\.tokens is damaged in block 0 .*other lengths"):
        read_all(tokenised, tokenizer)


def test_verify_reads_the_tokens_too(tokenised):
    shown = CliRunner().invoke(app, ["shards", "verify", str(tokenised)])
    assert shown.exit_code == 0
    assert shown.output.count("is whole") == 2
    (file,) = tokenised.glob("tokens-*/shard-000001.tokens")
    whole = file.read_bytes()
    for data in (whole[:-1], whole + b"x", whole[:50] + b"\0" + whole[51:]):
        file.write_bytes(data)
        shown = CliRunner().invoke(app, ["shards", "verify", str(tokenised)])
        assert isinstance(shown.exception, UserError)
        assert "shard-000001.tokens is damaged" in str(shown.exception)


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 10_000, b'{"format": 2}', b"\xff\x00"])
def test_a_damaged_mark_of_a_finished_shard_is_a_sentence(corpus, tokenizer, tmp_path, content):
    out = shutil.copytree(corpus.path, tmp_path / "corpus")
    with worker_pool(1) as work:
        tokenise(out, tokenizer, LENGTH, work)
    (mark,) = out.glob("tokens-*/done-000001.json")
    mark.write_bytes(content)
    with pytest.raises(
        UserError, match=r"done-000001.json (is damaged|has format).* Delete it; the same command"
    ):
        publish(out, tokenizer, LENGTH)


def test_a_few_compressed_bytes_are_not_unpacked_to_gigabytes(text, tmp_path):
    """A block that claims 8 GiB, with all its checksums made anew."""
    out = tmp_path / "corpus"
    prepare([str(text)], out, PrepareSettings(zst=True))
    index = json.loads((out / "index.json").read_text())
    (shard,) = index["shards"]
    file = out / shard["name"]
    raw = bytearray(file.read_bytes())
    with tarfile.open(file) as tar:
        first = tar.getmembers()[0]
    frame = bytes.fromhex("28b52ffd") + bytes([0b1110_0000]) + (8 << 30).to_bytes(8, "little")
    raw[first.offset_data : first.offset_data + len(frame)] = frame
    assert zstandard.frame_content_size(bytes(raw[first.offset_data :])) == 8 << 30
    file.write_bytes(raw)
    columns = shard["blocks"]
    columns["xxh3"][0] = xxhash.xxh3_64_hexdigest(bytes(raw[: columns["length"][0]]))
    (out / "index.json").write_text(json.dumps(sealed(index)))
    with pytest.raises(
        UserError, match=r"damaged in block 0 .* claim 8589934592, where at most 2049024 can be"
    ):
        Shards(out).read(0)
