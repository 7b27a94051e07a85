"""All packings of a text are that text, and every wrong input says what is wrong with it."""

import gzip
import json

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from unsee_dist.data import sources
from unsee_dist.data.sources import describe, documents, sentences

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
        st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), min_size=1), min_size=1
    )
)
@settings(max_examples=100, deadline=None)
def test_chunks_cut_anywhere_change_nothing(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("chunks") / "t.txt"
    path.write_bytes("\n".join(lines).encode())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sources, "CHUNK_BYTES", 3)
        kept = [line for line in lines if not line.isspace()]
        if kept:
            assert list(sentences([str(path)], "s")) == kept


def test_an_input_is_known_by_its_bytes(tmp_path):
    (tmp_path / "a.txt").write_text("One small sentence.")
    before = describe(str(tmp_path / "a.txt"))
    (tmp_path / "a.txt").write_text("One smell sentence.")
    assert before["name"] == "a.txt"
    assert before["bytes"] == 19
    assert before["xxh3"] != describe(str(tmp_path / "a.txt"))["xxh3"]


WRONG = {
    "empty.txt": (b"", "is empty"),
    "blank.txt": (b"\n \n\n", "is empty"),
    "empty.txt.gz": (gzip.compress(b""), "is empty"),
    "latin.txt": (b"first\nna\xefve caf\xe9\n", r"not UTF-8 text \(byte 0xef in line 2\).*iconv"),
    "wide.txt": ("Some text here".encode("utf-16"), r"is not text \(it holds a NUL byte near line 1"),
    "model.bin": (bytes(range(256)), "is not text"),
    "plain.gz": (b"not packed at all", "cannot be unpacked"),
    "plain.zst": (b"not packed at all", "cannot be unpacked"),
    "cut.txt.gz": (gzip.compress(bytes(range(1, 128)) * 99)[:-9], "ends in the middle"),
    "cut.txt.zst": (zstandard.compress(bytes(range(1, 128)) * 99)[:-9], "ends in the middle"),
    "table.csv": (b"a,b\n", r".csv is not a format"),
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


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"gone.txt does not exist. Give UTF-8 text"):
        list(sentences([str(tmp_path / "gone.txt")], "text"))
    with pytest.raises(ValueError, match=r"is a folder. Name the files in it"):
        describe(str(tmp_path))


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LINE_BYTES", 1 << 20)
    (tmp_path / "long.txt").write_bytes(b"a " * (1 << 20))
    with pytest.raises(ValueError, match=r"line 1 is longer than 1 MiB"):
        list(sentences([str(tmp_path / "long.txt")], "text"))
