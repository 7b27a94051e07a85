"""Files of every format, damaged at random: what is read, or a sentence that names the file. Never a traceback."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from unit.data.tars import tar_of

from unsee_dist.data.prepare import opening
from unsee_dist.data.prepare.bad_records import BadRecords
from unsee_dist.data.prepare.documents import documents_of
from unsee_dist.data.prepare.sources import input_splits
from unsee_dist.errors import UserError

LINES = [f"This is sentence {number * number} of a text, naïve 你好." for number in range(200)]
TEXT = ("\n".join(LINES) + "\n").encode()
JSONL = "\n".join(json.dumps({"id": n, "text": line}) for n, line in enumerate(LINES)).encode()
CSV = ("id,text\n" + "".join(f'{n},"{line}"\n' for n, line in enumerate(LINES))).encode()
TSV = ("id\ttext\n" + "".join(f"{n}\t{line}\n" for n, line in enumerate(LINES))).encode()


def parquet(codec: str, **more: object) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": LINES}), sink, compression=codec, **more)
    return sink.getvalue()


def tar() -> bytes:
    members = {
        "a.txt": TEXT[:3000],
        "b.json": b'{"text": "one two three"}',
        "c.jsonl": JSONL,
        "d.txt.gz": gzip.compress(TEXT),
    }
    return tar_of(members.items())


FILES = {
    "t.txt": TEXT,
    "t.jsonl": JSONL,
    "t.csv": CSV,
    "t.tsv": TSV,
    "one.txt.gz": gzip.compress(TEXT, 9),
    "two.txt.gz": gzip.compress(TEXT, 1) + gzip.compress(TEXT, 0),
    "t.jsonl.zst": zstandard.compress(JSONL, 19),
    "t.txt.zst": zstandard.ZstdCompressor(level=-5, write_checksum=True).compress(TEXT),
    "snappy.parquet": parquet("snappy"),
    "zstd.parquet": parquet("zstd", use_dictionary=False),
    "gzip.parquet": parquet("gzip"),
    "brotli.parquet": parquet("brotli", data_page_version="2.0"),
    "t.tar": tar(),
    "part-00000": JSONL,
    "part-00001": gzip.compress(TEXT),
    "x.json": JSONL,
}


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Bytes flipped, cut off, added, removed, inserted, or all of it twice."""
    found, place = bytearray(data), draw.randrange(len(data))
    kind = draw.choice(["flip"] * 5 + ["cut", "add", "remove", "insert", "twice"])
    if kind == "flip":
        for _ in range(draw.choice([1, 1, 2, 5, 50])):
            found[draw.randrange(len(found))] = draw.randrange(256)
    elif kind == "cut":
        del found[place:]
    elif kind == "add":
        found += draw.randbytes(draw.choice([1, 100, 5000]))
    elif kind == "remove":
        del found[place : place + draw.choice([1, 10, 600])]
    elif kind == "insert":
        found[place:place] = bytes(
            draw.choice(b'{}[]",\n\r\t\\\0\xff;') for _ in range(draw.choice([1, 3, 1000]))
        )
    else:
        found *= 2
    return bytes(found)


def read(path: Path, skip: bool, split_bytes: int) -> list[str]:
    bad = BadRecords(skip)
    return [
        sentence
        for split in input_splits([str(path)], "text", split_bytes, bad=bad)
        for document in documents_of(split, "text", bad=bad)
        for sentence in document
    ]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("count", [15, pytest.param(1500, marks=pytest.mark.slow)])
def test_damage_of_any_kind_is_a_sentence_with_the_name(tmp_path: Path, name: str, count: int) -> None:
    draw, messages = random.Random(f"{name} {count}"), list[str]()
    path = tmp_path / name
    path.write_bytes(FILES[name])
    assert len(read(path, False, 1000)) >= len(LINES)
    for _ in range(count):
        path.write_bytes(damaged(FILES[name], draw))
        try:
            read(path, draw.random() < 0.5, draw.choice([100, 5000, 10**6]))
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > count // 5
    assert all(name in sentence for sentence in messages)


PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstandard.compress}


@pytest.mark.parametrize("ending", PACK)
def test_what_may_follow_packed_bytes(tmp_path: Path, ending: str) -> None:
    """Zeros of a tape's block, another member and frames to be skipped are read over; other bytes are damage."""
    packed, path = PACK[ending](TEXT), tmp_path / f"t.txt{ending}"
    skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc" if ending == ".zst" else b""
    for more, times in ((b"\0" * 700, 1), (packed, 2), (b"\0" * 700 + packed, 2), (skippable, 1)):
        path.write_bytes(packed + more)
        assert b"".join(opening.unpacked(str(path), lambda _: None)) == TEXT * times
    path.write_bytes(packed + b"and more")
    with pytest.raises(
        UserError, match=rf"{path.name} cannot be decompressed: 1 whole parts are followed by bytes"
    ):
        read(path, False, 1000)


@pytest.mark.parametrize("level", [-7, 1, 19, 22])
def test_any_level_of_compression_is_read(tmp_path: Path, level: int) -> None:
    (tmp_path / "t.txt.zst").write_bytes(zstandard.ZstdCompressor(level=level).compress(TEXT))
    assert read(tmp_path / "t.txt.zst", False, 1000) == LINES
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress(TEXT, min(max(level, 0), 9)))
    assert read(tmp_path / "t.txt.gz", False, 1000) == LINES


def test_a_window_that_is_too_large_is_said_with_the_remedy(tmp_path: Path) -> None:
    chosen = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=chosen).compressobj()
    (tmp_path / "t.txt.zst").write_bytes(packer.compress(TEXT) + packer.flush())
    with pytest.raises(UserError, match=r"t.txt.zst cannot be decompressed .*zstd -d --long=31"):
        read(tmp_path / "t.txt.zst", False, 1000)


def test_zeros_packed_small_do_not_fill_the_memory(tmp_path: Path) -> None:
    """A gigabyte in a megabyte is unpacked some megabytes at a time."""
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress(b"a word " * (4 << 20), 9))
    largest = max(map(len, opening.unpacked(str(tmp_path / "t.txt.gz"), lambda _: None)))
    assert largest <= 1100 * opening.PACKED_BYTES


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (gzip.compress(TEXT), "gzip data: name it .gz"),
        (zstandard.compress(TEXT), "zstd data: name it .zst"),
        (parquet("snappy"), "a parquet file: name it .parquet"),
        (tar(), "a tar: name it .tar"),
        (b"PK\3\4\0\0\xff", "a zip archive"),
        (b"%PDF-1.4\0\xff", "a PDF"),
    ],
)
def test_what_is_no_text_is_called_what_it_is(tmp_path: Path, data: bytes, what: str) -> None:
    (tmp_path / "t.txt").write_bytes(data)
    with pytest.raises(UserError, match=f"t.txt is not text, but {what}"):
        read(tmp_path / "t.txt", False, 1000)
