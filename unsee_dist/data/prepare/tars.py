"""Documents out of other people's WebDataset tars, read by webdataset's own iteration.

    NAME.txt      a sentence a line; each line is a document of one sentence
    NAME.json     an object; its field holds a sentence, or a document: a list of them
    NAME.jsonl    such an object a line
    any as .gz    or .zst: unpacked first

Other members (images, classes, `__index__.json`, hidden files) are left out. Stock reading ends without an error where
a header is damaged or the file is cut, with half of the samples: here the tar is walked first, header by header, and
must come to its own end.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

import zstandard

from unsee_dist.data.prepare import documents, opening
from unsee_dist.data.prepare.opening import Advance
from unsee_dist.errors import UserError

KINDS = (".txt", ".json", ".jsonl")
REMEDY = "Copy it again, or leave it out."


def of_tar(name: str, field: str, advance: Advance) -> Iterator[list[str]]:
    """The documents of a tar's members, in order. UserError names the tar, and the member where one is at fault."""
    from webdataset.tariterators import tar_file_iterator  # imports torch: 1.4 s for those who read tars

    with opening.opened(name) as file:
        check_whole(name, file)
        file.seek(0)
        left_out: Counter[str] = Counter()
        read = 0
        for member in tar_file_iterator(file):
            path, data = str(member["fname"]), bytes(member["data"])
            advance(len(data))
            kind = _kind(path)
            if kind is None:
                left_out[PurePosixPath(path).suffix or path] += 1
                continue
            read += 1
            yield from _of_member(f"{name} member {path}", kind, path, data, field)
        if not read:
            others = ", ".join(sorted(left_out)) or "nothing"
            raise UserError(f"{name} has no member {', '.join(KINDS)} (it has {others}). Give other tars.")


def check_whole(name: str, file: IO[bytes]) -> None:
    """UserError when the headers of a tar do not lead to its end, or when it ends in the middle."""
    size = file.seek(0, 2)
    file.seek(0)
    end, last = 0, ""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                last = member.name
                end = (
                    tar.offset
                )  # of the next header: past the payload's blocks, and what GNU adds for sparse files
    except (tarfile.TarError, EOFError) as error:
        place = f"after its member {last}, at byte {end}" if last else "at its start, or is no tar"
        raise UserError(f"{name} is damaged {place} ({error}). {REMEDY}") from error
    if end > size:
        raise UserError(
            f"{name} ends in the middle of its member {last}: it was cut at byte {size}. {REMEDY}"
        )
    file.seek(end)
    rest = file.read(tarfile.BLOCKSIZE)
    if len(rest) < tarfile.BLOCKSIZE:
        raise UserError(f"{name} ends without its end mark after {last or 'no member'}: it was cut. {REMEDY}")
    while rest:
        if rest.count(0) != len(rest):
            after = f"after its member {last}" if last else "at its start"
            raise UserError(f"{name} is damaged {after}, at byte {end}: no header, and no end. {REMEDY}")
        rest = file.read(1 << 20)


def _kind(path: str) -> str | None:
    """.txt, .json or .jsonl; None for what is left out."""
    name = PurePosixPath(path).name.lower()
    if name.startswith((".", "__")):
        return None
    ending = PurePosixPath(name.removesuffix(".gz").removesuffix(".zst")).suffix
    return ending if ending in KINDS else None


def _unpack_zst(data: bytes) -> bytes:
    """Frames whose header does not tell their length, too."""
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    unpacked = unpacker.decompress(data)
    if not unpacker.eof:
        raise EOFError("it ends in the middle")
    return unpacked


def _of_member(where: str, kind: str, path: str, data: bytes, field: str) -> Iterator[list[str]]:
    if path.lower().endswith((".gz", ".zst")):
        try:
            data = gzip.decompress(data) if path.lower().endswith(".gz") else _unpack_zst(data)
        except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as error:
            raise UserError(f"{where} cannot be unpacked ({error}). {REMEDY}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text (byte {error.start}). {REMEDY}") from error
    if kind == ".json":
        yield documents.of_json(where, text, field)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line and not line.isspace():
            yield documents.of_json(f"{where} line {number}", line, field) if kind == ".jsonl" else [line]
