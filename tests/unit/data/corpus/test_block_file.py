"""A large corpus has its blocks in a file: it is the same corpus, and damage of the file is a sentence with its name."""

import json
import pickle
import shutil
from functools import partial
from unittest import mock

import fsspec
import numpy as np
import pytest
import xxhash
from stream_configs import stream_config
from typer.testing import CliRunner

from unsee_dist.cli import app
from unsee_dist.config.sections import DataSettings
from unsee_dist.data import Shards, Stream, open_corpus
from unsee_dist.data.corpus import block_file
from unsee_dist.data.corpus.block_file import BLOCKS, HEADER, LISTED_BLOCKS, header
from unsee_dist.data.corpus.blocks import ROW
from unsee_dist.data.corpus.tokenise import publish, tokenise
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare
from unsee_dist.data.processes import worker_pool
from unsee_dist.errors import TransientError, UserError
from unsee_dist.files.trees import sealed

CONFIG = partial(stream_config, seed=3, batch=25, max_tokens=9)
SETTINGS = PrepareSettings(seed=5, shard_sentences=2048)  # those of the fixture `corpus`


@pytest.fixture(scope="module")
def made(text, tokenizer, tmp_path_factory):
    """The sentences of `corpus`, and their tokens, in the format of a large corpus."""
    out = tmp_path_factory.mktemp("large") / "corpus"
    with mock.patch.object(block_file, "LISTED_BLOCKS", 0), worker_pool(1) as work:
        prepare([str(text)], out, SETTINGS)
        tokenise(out, tokenizer, 9, work)
        publish(out, tokenizer, 9)
    return out


@pytest.fixture
def large(made, tmp_path):
    """One to damage."""
    return shutil.copytree(made, tmp_path / "large")


def tokens_of(corpus):
    (folder,) = corpus.glob("tokens-*")
    return folder


def edit(folder, change, seal=True):
    """Change the rows as an editor does who makes all checksums anew, or none."""
    path, index = folder / BLOCKS, folder / "index.json"
    data = path.read_bytes()
    rows = np.frombuffer(bytearray(data[HEADER:]), dtype=ROW)
    change(rows)
    path.write_bytes(data[:HEADER] + rows.tobytes())
    if seal:
        tree, first = json.loads(index.read_text()), 0
        for shard in tree["shards"]:
            last = first + shard["blocks"]["number"]
            shard["blocks"]["xxh3"] = xxhash.xxh3_64_hexdigest(rows[first:last].tobytes())
            first = last
        index.write_text(json.dumps(sealed(tree)))


def test_it_is_the_same_corpus(made, corpus, tokenizer):
    large = Shards(made)
    assert (large.fingerprint, large.sentences) == (corpus.fingerprint, corpus.sentences)
    assert list(large.blocks) == list(corpus.blocks)
    assert large.head(9999) == corpus.head(9999)
    assert (tokens_of(made) / BLOCKS).exists()
    config = CONFIG(workers=1)
    wanted = [batch.ids for batch in Stream(corpus, tokenizer, CONFIG()).batches(1, 110)]
    batches = list(Stream(large, tokenizer, config).batches(1, 110))  # over the end of an epoch
    assert [batch.ids for batch in batches] == wanted
    texts = list(Stream(corpus, tokenizer, CONFIG()).batches(1, 3))
    for batch, text in zip(batches, texts, strict=False):
        assert batch.micro_batches[0].input_ids.equal(text.micro_batches[0].input_ids)


def test_a_small_corpus_lists_its_blocks_as_before(corpus):
    """No byte of what exists has changed."""
    index = json.loads((corpus.path / "index.json").read_text())
    assert index["format"] == 2
    assert [*index["shards"][0]["blocks"]] == ["offset", "length", "xxh3", "sentences"]
    assert not (corpus.path / BLOCKS).exists()
    assert LISTED_BLOCKS == 4096


def test_the_file_is_one_of_numpy(made):
    rows = np.load(made / BLOCKS, mmap_mode="r")
    assert (rows.dtype, rows.shape) == (ROW, (3,))
    assert rows["sentences"].tolist() == [1024, 1024, 452]
    for blocks in (1, 9_765_625, 1 << 40):
        assert len(header(blocks)) == HEADER


def test_a_worker_is_sent_neither_index_nor_rows(made, tokenizer):
    """Its blocks are read from the file where they are needed."""
    shards = Shards(made)
    sent = pickle.loads(pickle.dumps((shards, shards.tokens(tokenizer, 9))))
    for each in (*sent, *(part.blocks for part in sent)):
        assert "index" not in vars(each)
    assert sent[0].read(2) == shards.read(2)
    assert len(sent[1].read(2).lengths) == 452


def test_the_commands_know_it(large, text):
    shown = CliRunner().invoke(app, ["shards", "info", str(large)])
    assert shown.output.startswith("2,500 sentences in 3 blocks, 2 shards, ")
    shown = CliRunner().invoke(app, ["shards", "verify", str(large)])
    assert shown.output.count("is whole") == 2
    again = prepare([str(text)], large, SETTINGS)
    assert (again.kept, again.shards, again.seconds) == (2500, 2, None)
    for folder, remedy in ((tokens_of(large), "Delete"), (large, "Copy the corpus again")):
        (folder / BLOCKS).unlink()
        shown = CliRunner().invoke(app, ["shards", "verify", str(large)])
        assert isinstance(shown.exception, UserError)
        assert str(folder / BLOCKS) in str(shown.exception)
        assert remedy in str(shown.exception)
    with pytest.raises(UserError, match=r"blocks\.npy cannot be read \(No such file"):
        prepare([str(text)], large, SETTINGS)


def one_more_sentence(rows):
    rows["sentences"][1] += 1


def too_many_sentences(rows):
    rows["sentences"][:2] = 2047, 1


def moved_sentences(rows):
    rows["sentences"][:2] = 1023, 1025


def no_sentences(rows):
    rows["sentences"][2] = 0


def a_negative_offset(rows):
    rows["offset"][1] = -5


def a_huge_offset(rows):
    rows["offset"][1] = 2**63 - 1


def no_length(rows):
    rows["offset"][1] = 0


def a_late_start(rows):
    rows["offset"][0] = 512


def swapped(rows):
    rows[:2] = rows[[1, 0]]


CHANGES = [
    *(one_more_sentence, too_many_sentences, moved_sentences, no_sentences, a_negative_offset),
    *(a_huge_offset, no_length, a_late_start, swapped),
]


@pytest.mark.parametrize("seal", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_edited_rows_are_refused_also_when_their_checksums_were_made_anew(large, change, seal):
    edit(large, change, seal)
    for on_damage in ("stop", "skip"):
        with pytest.raises(
            UserError, match=r"large/blocks\.npy is damaged or was edited: .* Copy the corpus again"
        ):
            Shards(large, on_damage)
    shutil.rmtree(large)


@pytest.mark.parametrize("seal", [False, True])
@pytest.mark.parametrize("change", [moved_sentences, a_negative_offset, swapped])
def test_edited_rows_of_tokens_are_refused(large, tokenizer, change, seal):
    edit(tokens_of(large), change, seal)
    with pytest.raises(
        UserError, match=r"tokens-.*/blocks\.npy is damaged or was edited: .* Delete .*tokens-"
    ):
        Shards(large).tokens(tokenizer, 9)


def other_type(data):
    return data.replace(b"'<u2'", b"'<i2'")


def other_shape(data):
    return data.replace(b"(3,)", b"(4,)")


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"",
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:HEADER],
        lambda data: data[1:],
        other_type,
        other_shape,
        lambda data: b"\x80" + data[1:],
        lambda data: data[:8] + b"\xff\xff" + data[10:],
    ],
)
def test_another_file_is_refused(large, change):
    path = large / BLOCKS
    whole = path.read_bytes()
    assert change(whole) != whole
    path.write_bytes(change(whole))
    with pytest.raises(UserError, match=r"blocks\.npy is damaged or was edited: .* Copy the corpus again"):
        Shards(large)


@pytest.mark.parametrize("left", [7, 18])
def test_a_file_that_was_cut_is_refused_also_when_its_checksums_were_made_anew(large, left):
    path, index = large / BLOCKS, large / "index.json"
    path.write_bytes(path.read_bytes()[: HEADER + 18 + left])
    tree = json.loads(index.read_text())
    for shard, rows in zip(tree["shards"], (path.read_bytes()[HEADER:], b""), strict=True):
        shard["blocks"]["xxh3"] = xxhash.xxh3_64_hexdigest(rows)
    index.write_text(json.dumps(sealed(tree)))
    with pytest.raises(UserError, match=r"blocks\.npy is damaged or was edited: it ends before its last row"):
        Shards(large)


def test_any_flipped_bit_is_found(large):
    path = large / BLOCKS
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"blocks\.npy is damaged or was edited"):
            Shards(large)


def test_damage_that_comes_later_is_found_on_reading(large):
    """Of the index, so nothing is skipped for it; also by a rank that has not checked the whole file."""
    corpora = [Shards(large), Shards(large, on_damage="skip"), Shards(large, check=False)]
    edit(large, one_more_sentence, seal=False)
    corpora.append(Shards(large, check=False))
    for shards in corpora:
        with pytest.raises(
            UserError, match=r"blocks\.npy is damaged or was edited: the rows of shard-000000"
        ):
            shards.replacement_block(1)
        assert len(shards.read(2)) == 452
    path = large / BLOCKS
    path.write_bytes(path.read_bytes()[: HEADER + 20])
    with pytest.raises(UserError, match=r"blocks\.npy is damaged or was edited: the rows of shard-000001"):
        Shards(large, check=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda shard: shard["blocks"].update(number=1),
        lambda shard: shard["blocks"].update(number=3),
        lambda shard: shard["blocks"].update(number=1 << 39),
        lambda shard: shard["blocks"].update(number=-1),
        lambda shard: shard["blocks"].update(xxh3="0"),
        lambda shard: shard.update(
            blocks={"offset": [0], "length": [1], "xxh3": ["0" * 16], "sentences": [1]}
        ),
        lambda shard: shard["blocks"].pop("number"),
    ],
)
def test_an_edited_index_is_refused(large, change):
    path = large / "index.json"
    tree = json.loads(path.read_text())
    change(tree["shards"][0])
    path.write_text(json.dumps(sealed(tree)))
    with pytest.raises(
        UserError, match=r"(index\.json|blocks\.npy) is damaged or was edited: .* Copy the corpus again"
    ):
        Shards(large)


def test_format_and_blocks_belong_together(large, corpus, tmp_path):
    small = shutil.copytree(corpus.path, tmp_path / "small")
    for folder, number in ((large, 2), (small, 3), (large, 1)):
        path = folder / "index.json"
        tree = json.loads(path.read_text()) | {"format": number}
        path.write_text(json.dumps(sealed(tree)))
        with pytest.raises(UserError, match=rf"its blocks are not those of format {number}"):
            Shards(folder)


def test_a_shard_of_another_size_is_named_with_its_block(large):
    shard = large / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1])
    offset = Shards(large, check=False).blocks[1].offset
    with pytest.raises(
        UserError, match=rf"shard-000000.tar is damaged in block 1 at offset {offset}: .* found \d+ bytes"
    ):
        Shards(large)
    assert Shards(large, check=False).read(0)


def test_a_remote_corpus_has_it_too(large, corpus, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    for file in large.iterdir():
        if file.is_file():
            memory.pipe(f"/large/{file.name}", file.read_bytes())
    fetched, fetch = [], memory.cat_file
    monkeypatch.setattr(
        memory, "cat_file", lambda path, **rest: fetched.append((path, rest)) or fetch(path, **rest)
    )
    try:
        assert Shards("memory://large").head(9999) == corpus.head(9999)
        fetched.clear()
        assert Shards("memory://large", check=False).head(9999) == corpus.head(9999)
        assert [(path[-10:], rest["end"]) for path, rest in fetched] == [
            ("index.json", (large / "index.json").stat().st_size),
            ("blocks.npy", HEADER),
        ]
        for kept in (tmp_path / "cache").rglob("rows-*"):
            kept.write_bytes(kept.read_bytes()[:-1] + b"x")
        assert Shards("memory://large", check=False).head(9999) == corpus.head(9999)
        memory.rm("/large/blocks.npy")
        with pytest.raises(UserError, match=r"memory://large/blocks\.npy cannot be read"):
            Shards("memory://large")
    finally:
        memory.rm("/large", recursive=True)


def test_a_fault_that_passes_is_none_of_the_user(large, monkeypatch):
    shards = Shards(large)

    def fail(*_):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(type(shards.store), "read", fail)
    with pytest.raises(TransientError, match=r"blocks\.npy cannot be read now \(Stale file handle\)"):
        _ = shards.blocks[0]


def test_a_mix_of_both_kinds(made, corpus, tmp_path):
    both = shutil.copytree(corpus.path, tmp_path / "small")
    mix = open_corpus(DataSettings(mix=f"1 {made}, 1 {both}"))
    assert (mix.sentences, len(mix.sizes)) == (5000, 6)
    assert mix.read(5) == mix.read(2) == corpus.read(2)
    blocks, lines = mix.find(np.array([2047, 2048, 2499, 2500, 4999]))
    assert (blocks.tolist(), lines.tolist()) == ([1, 2, 2, 3, 5], [1023, 0, 451, 0, 451])


def test_a_preparation_that_was_killed_before_its_index_leaves_no_other_file(text, tmp_path):
    """Killed between the two files; then the input was corrected, and is a small one."""
    out, source = tmp_path / "out", tmp_path / "t.txt"
    source.write_text(text.read_text())
    write = block_file.atomic.write_file

    def killed(path, *rest, **more):
        if path.name == "index.json":
            raise KeyboardInterrupt
        write(path, *rest, **more)

    with mock.patch.object(block_file, "LISTED_BLOCKS", 0):
        with mock.patch.object(block_file.atomic, "write_file", killed), pytest.raises(KeyboardInterrupt):
            prepare([str(source)], out, SETTINGS)
        assert (out / BLOCKS).exists()
        shutil.copytree(out, tmp_path / "goes-on")
        prepare([str(source)], tmp_path / "goes-on", SETTINGS)  # it goes on
        assert len(Shards(tmp_path / "goes-on").head(9999)) == 2500
    source.write_text(text.read_text() + "One more sentence than there was.\n")
    prepare([str(source)], out, SETTINGS)
    assert not (out / BLOCKS).exists()
    assert Shards(out).sentences == 2501
