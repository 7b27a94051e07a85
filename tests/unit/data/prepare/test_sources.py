"""All packings of a text are that text, and every wrong input says what is wrong with it."""

import csv
import functools
import gzip
import http.server
import json
import socket
import threading

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from unsee_dist.data.prepare import documents as parsing
from unsee_dist.data.prepare import opening
from unsee_dist.data.prepare.documents import documents_of
from unsee_dist.data.prepare.sources import describe, input_splits, resolve
from unsee_dist.errors import TransientError, UserError


def documents(inputs, field, split_bytes=1000):
    return [d for piece in input_splits(inputs, field, split_bytes) for d in documents_of(piece, field)]


def sentences(inputs, field, split_bytes=1000):
    return [sentence for document in documents(inputs, field, split_bytes) for sentence in document]


PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


@pytest.mark.parametrize("packed", PACK)
def test_text_and_jsonl_in_every_packing(tmp_path, make_sentence, packed):
    lines = [make_sentence(i) for i in range(500)]
    half = len(lines) // 2
    # two members or frames one after the other, as parallel compressors write them
    text = PACK[packed]("\r\n".join(lines[:half]).encode() + b"\r\n") + PACK[packed](
        "\n".join(lines[half:]).encode()
    )
    (tmp_path / f"t.txt{packed}").write_bytes(text)
    rows = [json.dumps({"s": lines[i : i + 5] if i % 2 else lines[i]}) for i in range(0, 495, 5)]
    (tmp_path / f"t.jsonl{packed}").write_bytes(PACK[packed]("\n\n".join(rows).encode()))
    assert [s.rstrip("\r") for s in sentences([str(tmp_path / f"t.txt{packed}")], "s")] == lines
    found = list(documents([str(tmp_path / f"t.jsonl{packed}")], "s"))
    assert found == [lines[i : i + 5] if i % 2 else [lines[i]] for i in range(0, 495, 5)]


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), min_size=1), min_size=1
    )
)
@settings(max_examples=100, deadline=None)
def test_chunks_cut_anywhere_change_nothing(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("chunks") / "t.txt"
    path.write_bytes("\n".join(lines).encode())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(opening, "CHUNK_BYTES", 3)
        kept = [line for line in lines if not line.isspace()]
        if kept:
            assert list(sentences([str(path)], "s", 5)) == kept


def test_an_input_is_known_by_its_bytes(tmp_path):
    (tmp_path / "a.txt").write_text("One small sentence.")
    before = describe(str(tmp_path / "a.txt"))
    (tmp_path / "a.txt").write_text("One smell sentence.")
    assert before.name == "a.txt"
    assert before.bytes == 19
    assert before.xxh3 != describe(str(tmp_path / "a.txt")).xxh3


WRONG = {
    "empty.txt": (b"", "is empty"),
    "blank.txt": (b"\n \n\n", "is empty"),
    "empty.txt.gz": (gzip.compress(b""), "is empty"),
    "latin.txt": (b"first\nna\xefve caf\xe9\n", r"not UTF-8 text \(byte 0xef in line 2\).*iconv"),
    "wide.txt": ("Some text here".encode("utf-16"), r"is UTF-16 text .*iconv -f UTF-16 -t UTF-8"),
    "model.bin": (bytes(range(256)), "is not text"),
    "strings.json": (b'"One sentence."\n"Another one."\n', "has no JSON object in its first line"),
    "twice.txt.gz": (gzip.compress(gzip.compress(b"words")), "is packed twice. Unpack it once"),
    "late.csv": (b"text\n" + b"a word\n" * 20_000 + b"a\0b\n", "NUL byte in line 20002"),
    "part-00000": (
        b"id,text\n1,some words\n",
        r"is a table: its first line has the column 'text'.*ends in .csv",
    ),
    "part-00001": (b"id\ttext\n1\tsome words\n", r"ends in .tsv"),
    "plain.gz": (b"not packed at all", "cannot be decompressed"),
    "plain.zst": (b"not packed at all", "cannot be decompressed"),
    "cut.txt.gz": (gzip.compress(bytes(range(1, 128)) * 99)[:-9], "ends in the middle"),
    "cut.txt.zst": (zstandard.compress(bytes(range(1, 128)) * 99)[:-9], "ends in the middle"),
    "packed.zip": (b"PK", r".zip is not a format"),
    "table.csv": (b"a,b\n1,2\n", r"has no field 'text' \(it has a, b\). Write --field a"),
    "bare.csv": (b"text,b\n", r"is empty"),
    "ragged.csv": (b"text,b\n1,2\n1,2,3\n", r"line 3 has 3 columns, its header 2"),
    "open.csv": (b'text,b\n"1,2\n', r"line 2 is not a table row \(unexpected end of data\)"),
    "latin.csv": (b"text\nna\xefve\n", r"not UTF-8 text"),
    "table.parquet": (b"PAR1 and no more", r"is not a parquet file"),
    "broken.jsonl": (b'{"text": "fine"}\n{"text": \n', "line 2 is not JSON"),
    "list.jsonl": (b"[1, 2]\n", "line 1 is a JSON list, not an object"),
    "other.jsonl": (b'{"texts": "x"}\n', r"line 1 has no field 'text' \(it has texts\). Write --field texts"),
    "number.jsonl": (b'{"text": 3}\n', "field 'text' must hold a string or a list of strings"),
    "nested.jsonl": (b'{"text": ["a", null]}\n', "must hold a string or a list of strings"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_named(tmp_path, name):
    data, says = WRONG[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{name}.*{says}"):
        list(sentences([str(tmp_path / name)], "text"))


def test_tables(tmp_path, make_sentence):
    """The column of each kind of table is the column; quotes hold separators and line ends only in CSV."""
    texts = [make_sentence(i) for i in range(300)] + ['He said: "no, never"\r\nand left', "a\u2028b, c", ""]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["n", "told"], *enumerate(texts)])
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    plain = [sentence.replace("\r\n", " ") for sentence in texts]
    rows = "".join(f"{n}\t{sentence}\n" for n, sentence in enumerate(plain))
    (tmp_path / "t.tsv").write_text("n\ttold\n" + rows, encoding="utf-8")
    pyarrow.parquet.write_table(
        pyarrow.table({"n": range(303), "told": [t or None for t in texts]}),
        tmp_path / "t.parquet",
        row_group_size=100,
    )
    nested = pyarrow.table({"told": [texts[i : i + 3] for i in range(0, 303, 3)]})
    pyarrow.parquet.write_table(nested, tmp_path / "nested.parquet")
    for name, expected in {"t.csv": texts, "t.csv.gz": texts, "t.tsv": plain, "t.parquet": texts}.items():
        assert sentences([str(tmp_path / name)], "told") == expected
    assert documents([str(tmp_path / "nested.parquet")], "told") == nested["told"].to_pylist()


def test_folders_and_globs_are_their_files_by_name(tmp_path):
    for name in ("b.txt", "sub/a.txt", "a.jsonl", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = ["a.jsonl", "b.txt", "sub/a.txt"]
    assert resolve([str(tmp_path)]) == [str(tmp_path / name) for name in found]
    assert resolve([f"{tmp_path}/**/*.txt", "-"]) == [*(str(tmp_path / n) for n in found[1:]), "-"]
    with pytest.raises(ValueError, match=r"none\*.txt matches no file"):
        resolve([f"{tmp_path}/none*.txt"])
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match=r"bare is a folder without a file to read"):
        resolve([str(tmp_path / "bare")])


def test_remote_files_are_read_through_fsspec(make_sentence):
    lines = [make_sentence(i) for i in range(200)]
    memory = fsspec.filesystem("memory")
    memory.pipe("/corpus/a.txt", "\n".join(lines[:100]).encode())
    memory.pipe("/corpus/b.txt.gz", gzip.compress("\n".join(lines[100:]).encode()))
    names = resolve(["memory://corpus/*"])
    assert sentences(names, "text") == lines
    before = describe(names[0])
    assert before.bytes == memory.size("/corpus/a.txt")
    memory.pipe("/corpus/a.txt", "\n".join(lines[1:101]).encode())
    assert describe(names[0]).xxh3 != before.xxh3
    for name, says in {
        "memory://corpus/gone.txt": "cannot be read",
        "memory://corpus/gone*": "matches no file",
        "nonsense://x/y.txt": "Protocol not known: nonsense",
        "s3://bucket/x.txt": "cannot be read .* s3fs",
    }.items():
        with pytest.raises(ValueError, match=says):
            list(input_splits(resolve([name]), "text", 1000))


def test_a_file_over_http(tmp_path, make_sentence):
    lines = [make_sentence(i) for i in range(3000)]
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    pyarrow.parquet.write_table(pyarrow.table({"text": lines}), tmp_path / "t.parquet")
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        assert sentences([f"{place}/t.txt.gz"], "text") == lines
        assert sentences([f"{place}/t.parquet"], "text") == lines
        assert describe(f"{place}/t.txt.gz").bytes == (tmp_path / "t.txt.gz").stat().st_size
        with pytest.raises(ValueError, match=r"gone.txt cannot be read"):
            sentences([f"{place}/gone.txt"], "text")
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class _Failing(_Quiet):
    """A server that answers with the number in the file's name; cut.txt ends before the length it has promised."""

    def do_GET(self):
        name = self.path.strip("/").removesuffix(".txt")
        self.send_response(200 if name == "cut" else int(name))
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"One sentence.\n")
        self.close_connection = True

    do_HEAD = do_GET


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("403", UserError),
        ("410", UserError),
        ("429", TransientError),
        ("503", TransientError),
        ("cut", TransientError),
    ],
)
def test_a_server_that_fails_passes_and_one_that_refuses_is_a_mistake(name, kind):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Failing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{name}.txt"
        with pytest.raises(kind, match=f"{name}.txt cannot be read"):
            list(opening.raw(url, lambda _: None))
        server.shutdown()


def test_a_server_that_does_not_answer_passes_and_its_reason_is_said():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x.txt"
    with pytest.raises(TransientError, match=r"x.txt cannot be read \(Cannot connect"):
        list(opening.raw(url, lambda _: None))


def test_of_two_columns_of_one_name_none_is_taken(tmp_path):
    columns = [pyarrow.array(["a"]), pyarrow.array(["b"])]
    pyarrow.parquet.write_table(pyarrow.table(columns, names=["text", "text"]), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t.parquet has 2 columns 'text'. Rename one"):
        sentences([str(tmp_path / "t.parquet")], "text")


def test_a_dataset_is_streamed(tmp_path, make_sentence):
    lines = [make_sentence(i) for i in range(500)]
    pyarrow.parquet.write_table(pyarrow.table({"told": lines}), tmp_path / "train.parquet")
    assert sentences([f"dataset:{tmp_path}"], "told") == lines
    assert sentences([f"dataset:{tmp_path},default#train"], "told") == lines
    with pytest.raises(ValueError, match=r"has no field 'text' \(it has told\). Write --field told"):
        sentences([f"dataset:{tmp_path}"], "text")
    with pytest.raises(ValueError, match=r"cannot be read \(.*test.*Write dataset:OWNER/NAME,CONFIG#SPLIT"):
        sentences([f"dataset:{tmp_path}#test"], "told")


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"gone.txt does not exist. Give UTF-8 text"):
        list(sentences([str(tmp_path / "gone.txt")], "text"))
    with pytest.raises(ValueError, match=r"is a folder. Name the files in it"):
        describe(str(tmp_path))


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parsing, "LINE_BYTES", 1 << 20)
    (tmp_path / "long.txt").write_bytes(b"a " * (1 << 20))
    with pytest.raises(ValueError, match=r"line 1 is longer than 1 MiB"):
        list(sentences([str(tmp_path / "long.txt")], "text"))
