"""A record that cannot be read stops with file and line, or is skipped, counted and named; whatever the format."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from unit.data.tars import tar_of

from unsee_dist.data import Shards
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare
from unsee_dist.errors import UserError

SKIP = PrepareSettings(on_bad_record="skip")
GOOD = ["one good line of text", "two good lines of text", "three good lines of text"]


def jsonl(*bad: bytes) -> bytes:
    rows = [json.dumps({"text": line}).encode() for line in GOOD]
    return b"\n".join([rows[0], *bad, *rows[1:]]) + b"\n"


def csv(*bad: bytes) -> bytes:
    rows = [f'{number},"{line}"'.encode() for number, line in enumerate(GOOD)]
    return b"\n".join([b"n,text", rows[0], *bad, *rows[1:]]) + b"\n"


def tsv(*bad: bytes) -> bytes:
    return csv(*bad).replace(b",", b"\t").replace(b'"', b"")


def tar(name: str, data: bytes) -> bytes:
    return tar_of([("a.txt", "\n".join(GOOD).encode()), (name, data)])


def parquet(values: list[object], kind: pyarrow.DataType | None = None) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array(values, kind)}), sink)
    return sink.getvalue()


def not_utf8() -> bytes:
    texts = pyarrow.array([b"caf\xe9 is open now", *(line.encode() for line in GOOD)], pyarrow.binary())
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": texts.view(pyarrow.string())}), sink)
    return sink.getvalue()


DEEP = b'{"a":' * 1000 + b"1" + b"}" * 1000
# name of the file, its bytes with one bad record, what is said
BAD = {
    "null": ("t.jsonl", jsonl(b'{"text": null}'), "line 2: field 'text' must hold .* and holds null"),
    "missing": ("t.jsonl", jsonl(b'{"id": 3}'), r"line 2 has no field 'text' \(it has id\)"),
    "number": ("t.ndjson", jsonl(b'{"text": 3}'), "line 2: field 'text' must hold .* and holds int"),
    "null in a list": ("t.jl", jsonl(b'{"text": ["a", null]}'), "line 2: .* holds NoneType in its list"),
    "twice": (
        "t.jsonl",
        jsonl(b'{"text": "a b c", "n": {"text": 1}, "text": "d e f"}'),
        "line 2 has the field 'text' twice",
    ),
    "comma": ("t.jsonl", jsonl(b'{"text": "and so"},'), r"line 2 is not JSON .* Write `sed 's/,"),
    "Python's": ("t.jsonl", jsonl(b"{'text': 'and so'}"), r"line 2 is not JSON .* Write `python3 -c"),
    "no object": ("t.jsonl", jsonl(b"[1]"), "line 2 is a JSON list, not an object"),
    "cut": ("t.jsonl.gz", gzip.compress(jsonl(b'{"text": "an')), r"line 2 is not JSON \(Unterminated"),
    "deep": (
        "t.jsonl.zst",
        zstandard.compress(jsonl(DEEP)),
        "line 2 is JSON that is nested too deep|has no field",
    ),
    "json bytes": ("part-0", jsonl(b'{"text": "caf\xe9"}'), r"not UTF-8 text \(byte 0xe9 in line 2\)"),
    "text bytes": (
        "t.txt",
        b"one good line of text\ncaf\xe9 is open\n" + "\n".join(GOOD).encode(),
        r"byte 0xe9 in line 2",
    ),
    "text NUL": (
        "t.txt",
        b"one good line of text\nof\0wires\n" + "\n".join(GOOD).encode(),
        "it has a NUL byte in line 2",
    ),
    "half a letter": (
        "t.jsonl",
        jsonl(b'{"text": "half a \\ud83d of it"}'),
        r"line 2: field 'text' has half of a character \(\\ud83d\), which is not text",
    ),
    "half a letter in a list": ("t.jsonl", jsonl(b'{"text": ["a", "\\ude00"]}'), "has half of a character"),
    "member half": (
        "t.tar",
        tar("b.json", b'{"text": "\\ud800"}'),
        "member b.json: field .* half of a character",
    ),
    "json NUL": ("t.jsonl", jsonl(b'{"text": "of\0wires"}'), "it has a NUL byte in line 2"),
    "member NUL": ("t.tar", tar("b.txt", b"of\0wires"), "member b.txt is not text .*line 1"),
    "member UTF-16": ("t.tar", tar("b.txt", "a sentence".encode("utf-16")), "member b.txt is UTF-16 text"),
    "member frames": (
        "t.tar",
        tar("b.txt.zst", zstandard.compress(b"x") + zstandard.compress(bytes(99))[:-4]),
        "member b.txt.zst cannot be decompressed",
    ),
    "csv bytes": ("t.csv", csv(b"9,caf\xe9 is open"), r"not UTF-8 text"),
    "ragged": ("t.csv", csv(b"9,a,b"), "line 3 has 3 columns, its header 2"),
    "open quote": ("t.csv", csv(b'9,"never closed'), "line 3 is not a table row"),
    "quote inside": ("t.csv", csv(b'9,"never" closed'), "line 3 is not a table row"),
    "narrow": ("t.csv.gz", gzip.compress(csv(b"9")), "line 3 has 1 columns, its header 2"),
    "tsv ragged": ("t.tsv", tsv(b"9\ta\tb"), "line 3 has 3 columns, its header 2"),
    "tsv bytes": ("t.tsv", tsv(b"9\tcaf\xe9 is open"), "not UTF-8 text"),
    "parquet list": (
        "t.parquet",
        parquet([[GOOD[0]], ["a", None], GOOD[1:]]),
        "row 2: .* NoneType in its list",
    ),
    "parquet bytes": ("t.parquet", not_utf8(), "row 1 is not UTF-8 text"),
    "member json": ("t.tar", tar("b.json", b'{"text": '), "member b.json is not JSON"),
    "member field": ("t.tar", tar("b.json", b'{"id": 1}'), "member b.json has no field 'text'"),
    "member line": ("t.tar", tar("b.jsonl", b'{"text": 1}'), "member b.jsonl line 1: field"),
    "member bytes": ("t.tar", tar("b.txt", b"caf\xe9 is open"), "member b.txt is not UTF-8"),
    "member json bytes": ("t.tar", tar("b.json", b'{"text": "caf\xe9"}'), "member b.json is not UTF-8"),
    "member gz": ("t.tar", tar("b.txt.gz", b"no gzip"), "member b.txt.gz cannot be decompressed"),
}


@pytest.mark.parametrize("case", BAD)
def test_stop_names_the_record_and_skip_counts_it(tmp_path: Path, case: str) -> None:
    name, data, says = BAD[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{name}.*({says}).*Or write --on-bad-record skip"):
        prepare([str(tmp_path / name)], tmp_path / "out", PrepareSettings(), processes=1)
    assert not (tmp_path / "out").exists()
    for _ in range(2):  # the second time from the index
        report = prepare([str(tmp_path / name)], tmp_path / "out", SKIP, processes=1)
        assert report.dropped["bad record"] == 1
        assert report.read == report.kept + sum(report.dropped.values())
        assert sorted(Shards(tmp_path / "out").head(9)) == sorted(GOOD)
        (notice,) = report.notices()
        assert notice.startswith("bad records skipped: 1. The first: ")
        assert name in notice


def test_a_quote_that_is_not_closed_takes_no_other_row(tmp_path: Path) -> None:
    """Nor do two of them, with rows between."""
    rows = [f'{number},"a good row of text number {number}"' for number in range(50)]
    rows[10] = '10,"a quote that is never closed'
    rows[30] = '30,"another quote that is open'
    (tmp_path / "t.csv").write_text("\n".join(["n,text", *rows]))
    report = prepare([str(tmp_path / "t.csv")], tmp_path / "out", SKIP, processes=1)
    assert (report.kept, report.dropped) == (48, {"bad record": 2})


def test_a_million_bad_records_are_few_words(tmp_path: Path) -> None:
    bad = b"\n".join(b'{"id": %d}' % number for number in range(3000))
    (tmp_path / "t.jsonl").write_bytes(jsonl(bad))
    report = prepare([str(tmp_path / "t.jsonl")], tmp_path / "out", SKIP, processes=1)
    assert report.dropped == {"bad record": 3000}
    assert len(report.bad_records) == 10
    few, loud = report.notices()
    assert few.startswith("bad records skipped: 3,000. The first: ")
    assert loud.startswith("MOST OF THE INPUT WAS DROPPED: 3,000 of 3,003 ")
    assert "--field" in loud


def test_nothing_but_bad_records_says_the_first(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b'{"id": 1, "body": "some text"}\n' * 3)
    with pytest.raises(
        UserError, match=r"no sentence is left of 3 read: 3 bad record. The first: .*t.jsonl line 1 has"
    ):
        prepare([str(tmp_path / "t.jsonl")], tmp_path / "out", SKIP, processes=1)


@pytest.mark.parametrize(
    ("name", "data", "hint"),
    [
        ("t.jsonl", b'{"id": 3, "tags": [], "content": "Some text here"}', "content"),
        ("t.jsonl", b'{"texts": 4, "body": "Some text", "title": "x"}', "body"),
        ("t.jsonl", b'{"Text": "Some text", "body": "Some longer text"}', "Text"),
        ("t.jsonl", b'{"text": null, "body": "Some text"}', "body"),
        ("t.jsonl", b'{"id": "7", "lines": ["Some text", "and more"]}', "lines"),
        ("t.csv", b"id,body,n\n1,This is a text,3\n", "body"),
        ("t.csv", b"id,body\n", "id"),
        ("t.tsv", b"id\tsentence\n1\tThis is a text\n", "sentence"),
    ],
)
def test_the_hint_names_a_field_that_fits(tmp_path: Path, name: str, data: bytes, hint: str) -> None:
    (tmp_path / name).write_bytes(data)
    empty = data.count(b"\n") == 1 and name == "t.csv"
    with pytest.raises(UserError, match="holds text" if empty else rf"{name}.*Write --field {hint}\."):
        prepare([str(tmp_path / name)], tmp_path / "out", PrepareSettings(), processes=1)


def test_the_hint_of_parquet_is_a_column_of_text(tmp_path: Path) -> None:
    table = pyarrow.table({"texts": [1, 2], "body": ["a", "b"]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(
        UserError, match=r"t.parquet has no field 'text' \(it has texts, body\). Write --field body"
    ):
        prepare([str(tmp_path / "t.parquet")], tmp_path / "out", PrepareSettings(), processes=1)
    (tmp_path / "n.jsonl").write_text('{"id": 3}\n')
    with pytest.raises(UserError, match="None of its fields holds text"):
        prepare([str(tmp_path / "n.jsonl")], tmp_path / "out", PrepareSettings(), processes=1)


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("t.csv", b"id;text\n1;one two\n", "a semicolon"),
        ("t.csv", b"id\ttext\n1\tone two\n", "a tab"),
        ("t.tsv", b"id,text\n1,one two\n", "a comma"),
        ("t.csv", b"id|text\n1|one two\n", "a bar"),
        ("t.csv", b"text,text\n1,one two\n", "2 columns 'text'"),
    ],
)
def test_a_foreign_separator_is_named(tmp_path: Path, name: str, data: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{name} has .*{sentence}"):
        prepare([str(tmp_path / name)], tmp_path / "out", PrepareSettings(), processes=1)


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xfflder"))
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(jsonl(b"{"))
    (folder / os.fsdecode(b"n\xfe.md")).write_bytes(b"x")
    report = prepare([str(folder)], folder / "out", SKIP, processes=1)
    assert report.kept == 3
    printed = " ".join([report.title(), *report.notices()])
    printed.encode()
    assert "n\\xfe.md" in printed
    assert prepare([str(folder)], folder / "out", SKIP, processes=1).seconds is None
