"""A shard is a plain tar, its blocks fill it, and a corpus that is not one says so."""

import io
import json
import os
import resource
import shutil
import socket
import sys
import tarfile

import datasets
import pytest
import webdataset
import zstandard

from unsee_dist import cli
from unsee_dist.data import Shards
from unsee_dist.data.corpus import shard_writer, store
from unsee_dist.data.corpus.store import Store, Unreachable
from unsee_dist.data.corpus.verify import verify
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare
from unsee_dist.errors import ExitCode, UserError
from unsee_dist.files import atomic
from unsee_dist.files.owner import OWNER, owned
from unsee_dist.files.trees import sealed


@pytest.fixture
def copy(corpus, tmp_path):
    """A corpus of one's own to damage."""
    return shutil.copytree(corpus.path, tmp_path / "copy")


def read_all(path):
    shards = Shards(path)
    return [sentence for block in range(len(shards.blocks)) for sentence in shards.read(block)]


def edit(path, change):
    index = json.loads((path / "index.json").read_text())
    change(index)
    (path / "index.json").write_text(json.dumps(index))


def test_ids_count_shard_by_shard_block_by_block(corpus):
    sentences = read_all(corpus.path)
    assert len(sentences) == corpus.sentences == 2500
    for sentence_id in (0, 1023, 1024, 2047, 2048, 2499):
        assert corpus.sentence(sentence_id) == sentences[sentence_id]
    assert corpus.head(1100) == sentences[:1100]
    assert corpus.head(9999) == sentences
    with pytest.raises(ValueError, match="ids run from 0 to 2499"):
        corpus.sentence(2500)


def test_stock_webdataset_and_tarfile_read_the_shards(corpus):
    urls = [str(corpus.path / shard.name) for shard in corpus.index.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [s["txt"].decode().split("\n") for s in samples] == [
        corpus.read(b) for b in range(len(corpus.blocks))
    ]
    assert [s["__key__"] for s in samples] == [f"{b:09d}" for b in range(len(corpus.blocks))]
    with tarfile.open(urls[0]) as tar:
        assert {(member.mtime, member.name[-4:]) for member in tar} == {(0, ".txt")}


def test_datasets_reads_the_shards(corpus, tmp_path):
    """`datasets.load_dataset("webdataset")`, streaming and not."""
    urls = [str(corpus.path / shard.name) for shard in corpus.index.shards]
    streamed = datasets.load_dataset("webdataset", data_files=urls, split="train", streaming=True)
    assert [row["txt"].split("\n") for row in streamed] == [corpus.read(b) for b in range(3)]
    whole = datasets.load_dataset("webdataset", data_files=urls, split="train", cache_dir=str(tmp_path))
    assert whole["__key__"][:] == [f"{b:09d}" for b in range(3)]


def test_sizes_are_the_samples_that_a_stock_reader_finds(corpus):
    sizes = json.loads((corpus.path / "sizes.json").read_text())
    for name, size in sizes.items():
        samples = webdataset.WebDataset([str(corpus.path / name)], shardshuffle=False)
        assert sum(1 for _ in samples) == size
    assert sorted(sizes) == sorted(shard.name for shard in corpus.index.shards)


def test_compressed_members_hold_the_same_sentences(corpus, text, tmp_path):
    wanted = PrepareSettings(seed=5, shard_sentences=2048, zst=True)
    prepare([str(text)], tmp_path / "out", wanted)
    packed = Shards(tmp_path / "out")
    assert [packed.read(b) for b in range(3)] == [corpus.read(b) for b in range(3)]
    assert packed.fingerprint != corpus.fingerprint
    assert (tmp_path / "out/shard-000000.tar").stat().st_size < (
        corpus.path / "shard-000000.tar"
    ).stat().st_size
    first = next(iter(webdataset.WebDataset([str(tmp_path / "out/shard-000000.tar")], shardshuffle=False)))
    assert zstandard.decompress(first["txt.zst"]).decode().split("\n") == corpus.read(0)


def test_the_bytes_are_those_of_webdatasets_own_writer(make_sentence):
    sentences = [make_sentence(i).encode() for i in range(2500)]
    sink = io.BytesIO()
    with webdataset.TarWriter(sink, encoder=False, mtime=0) as writer:
        for block in range(3):
            part = sentences[1024 * block : 1024 * (block + 1)]
            writer.write({"__key__": f"{block + 5:09d}", "txt": b"\n".join(part)})
    assert shard_writer.shard("x", sentences, 5)[0] == sink.getvalue()


def test_blocks_cover_every_byte(corpus):
    for shard in corpus.index.shards:
        blocks = [block for block in corpus.blocks if block.shard == shard.name]
        end = 0
        for block in blocks:
            assert block.offset == end
            end += block.length
        assert end == (corpus.path / shard.name).stat().st_size


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index["shards"].pop(),
        lambda index: index["shards"].reverse(),
        lambda index: index["shards"][0].update(sha256="0" * 64),
        lambda index: index["shards"][0].update(sentences=7),
        lambda index: index["shards"][0]["blocks"]["offset"].pop(),
        lambda index: index["shards"][0]["blocks"]["length"].__setitem__(0, 512),
        lambda index: index["shards"][0]["blocks"]["sentences"].reverse() or index["shards"][0].pop("bytes"),
        lambda index: index.update(format=0),
        lambda index: index.pop("fingerprint"),
        lambda index: index.update(shards=[]),
    ],
)
def test_an_edited_index_is_refused(copy, change):
    edit(copy, change)
    with pytest.raises(ValueError, match=r"index.json is damaged or was edited: .* Copy the corpus again"):
        Shards(copy)


def test_block_counts_moved_in_the_index_are_found_on_reading(copy):
    def move(index):
        index["sentences"] -= 2
        index["shards"][0]["sentences"] -= 2
        index["shards"][0]["blocks"]["sentences"] = [1022, 1024]

    edit(copy, move)
    with pytest.raises(ValueError, match="its values are not those that were written"):
        Shards(copy)
    edit(copy, lambda index: index.update(sealed(index)))
    with pytest.raises(ValueError, match="and 1022 sentences, found 1024 sentences"):
        Shards(copy).read(0)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "index.json"
    atomic.write_file(path, b"what was there")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # the disk is full in the middle
    try:
        with pytest.raises(OSError, match="File too large"):
            atomic.write_file(path, b"x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [path]


def test_no_corpus(tmp_path):
    with pytest.raises(
        ValueError, match=r"data.shards = .*/gone does not exist; write `unsee prepare INPUT --out"
    ):
        Shards(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"has no index.json"):
        Shards(tmp_path)
    (tmp_path / "index.json").write_text("{ not json")
    with pytest.raises(ValueError, match=r"cannot be read as an index"):
        Shards(tmp_path)


def test_a_server_that_does_not_answer_is_no_missing_corpus(monkeypatch, capsys):
    """Nor is a preparation into a URL advised, which is refused."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a"
    monkeypatch.setattr(store, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(sys, "argv", ["unsee", "shards", "info", url])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == ExitCode.TRANSIENT
    printed = " ".join(capsys.readouterr().err.split())
    assert f"DIR = {url} does not answer" in printed
    assert "unsee prepare" not in printed


@pytest.mark.parametrize("status", [404, 410])
def test_what_a_server_says_it_has_not_is_missing(monkeypatch, status):
    assert _answering(monkeypatch, status).sizes(["x"]) == {"x": None}


@pytest.mark.parametrize("status", [503, None])
def test_a_server_that_cannot_answer_is_a_passing_fault(monkeypatch, status):
    with pytest.raises(Unreachable, match=r"http://127.0.0.1:9/a/x cannot be reached"):
        _answering(monkeypatch, status).sizes(["x"])


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_refuses_is_no_passing_fault_and_says_not_that_a_file_is_missing(monkeypatch, status):
    with pytest.raises(PermissionError):
        _answering(monkeypatch, status).sizes(["x"])


def _answering(monkeypatch: pytest.MonkeyPatch, status: int | None) -> Store:
    cause = type("ClientError", (Exception,), {"__module__": "aiohttp.client_exceptions", "status": status})()

    def info(path):
        raise FileNotFoundError(path) from cause

    there = Store("http://127.0.0.1:9/a")
    monkeypatch.setattr(there._system, "info", info)
    return there


def test_a_corpus_without_an_index_behind_a_url_is_to_be_copied_there():
    with pytest.raises(UserError, match="unsee prepare INPUT --out DIR` first, and copy DIR there"):
        Shards("memory://nowhere/a")


def test_a_corpus_that_is_being_prepared_is_named_as_that(tmp_path):
    with (
        owned(tmp_path / "preparing" / OWNER, "x", "y"),
        pytest.raises(UserError, match=rf"DIR = {tmp_path} is being prepared by process {os.getpid()} on "),
    ):
        verify(tmp_path)
    with pytest.raises(UserError, match=r"has no index.json"):
        verify(tmp_path)
