"""Sources: documents and sentences out of files, and out of what is installed.

    *.txt, *.txt.gz, *.txt.zst       a sentence a line, UTF-8; each line is a document of one sentence
    *.jsonl, *.jsonl.gz, *.jsonl.zst an object a line; its field holds a sentence, or a document: a list of them
    installed-docs                   the docstrings of the installed Python packages (installed_docs.py)

Every way an input can be wrong is a ValueError that names the file and says what to write instead.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any

import xxhash
import zstandard

from unsee_dist.data import installed_docs

INSTALLED_DOCS = "installed-docs"
CHUNK_BYTES = 256 * 1024
LINE_BYTES = 16 * 1024 * 1024  # a longer line is no sentence and no document, and would fill the memory
_FORMATS = "Give UTF-8 text with a sentence a line (.txt), or .jsonl with --field, plain or as .gz or .zst."
_STRUCTURED = {".json", ".csv", ".tsv", ".parquet", ".arrow", ".tar", ".zip", ".bz2", ".xz", ".html", ".xml"}

Advance = Callable[[int], None]  # told how many bytes of input were read, for a progress bar


def documents(inputs: Sequence[str], field: str, advance: Advance = lambda _: None) -> Iterator[list[str]]:
    """Documents (lists of raw sentences) of all inputs, in order."""
    for name in inputs:
        if name == INSTALLED_DOCS:
            yield from (sentences for _, sentences in installed_docs.objects(advance))
        else:
            yield from _file_documents(Path(name), field, advance)


def sentences(inputs: Sequence[str], field: str) -> Iterator[str]:
    """Raw sentences of all inputs, in order."""
    return chain.from_iterable(documents(inputs, field))


def describe(name: str) -> dict[str, Any]:
    """What an input is: its name without the folder, its bytes, and a digest of them."""
    if name == INSTALLED_DOCS:
        return installed_docs.describe()
    path, digest, size = Path(name), xxhash.xxh3_128(), 0
    for chunk in _raw(path, lambda _: None):
        digest.update(chunk)
        size += len(chunk)
    return {"name": path.name, "bytes": size, "xxh3": digest.hexdigest()}


def _file_documents(path: Path, field: str, advance: Advance) -> Iterator[list[str]]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes.pop() if suffixes and suffixes[-1] in (".gz", ".zst") else ""
    kind = suffixes[-1] if suffixes else ""
    if kind in _STRUCTURED:
        raise ValueError(f"{path} cannot be read: {kind} is not a format of `unsee prepare`. {_FORMATS}")
    found = False
    for number, line in enumerate(_lines(path, _bytes(path, packed, advance)), start=1):
        if not line or line.isspace():
            continue
        found = True
        yield _field(path, number, line, field) if kind == ".jsonl" else [line]
    if not found:
        raise ValueError(f"{path} is empty. {_FORMATS}")


def _field(path: Path, number: int, line: str, field: str) -> list[str]:
    """The document in one line of jsonl."""
    where = f"{path} line {number}"
    try:
        record = json.loads(line.lstrip("\ufeff"))
    except ValueError as error:
        raise ValueError(f"{where} is not JSON ({error}). Give one JSON object a line.") from error
    if not isinstance(record, dict):
        raise ValueError(
            f"{where} is a JSON {type(record).__name__}, not an object. Give one JSON object a line."
        )
    if field not in record:
        near = get_close_matches(field, record, 1) or list(record)[:1] or ["NAME"]
        raise ValueError(
            f"{where} has no field {field!r} (it has {', '.join(record) or 'none'}). Write --field {near[0]}."
        )
    value = record[field]
    document = [value] if isinstance(value, str) else value
    if not isinstance(document, list) or not all(isinstance(sentence, str) for sentence in document):
        raise ValueError(
            f"{where}: field {field!r} must hold a string or a list of strings. Choose another --field."
        )
    return document


def _lines(path: Path, chunks: Iterator[bytes]) -> Iterator[str]:
    """Lines of UTF-8 text, without their ends."""
    number, tail = 1, b""
    for chunk in chain(chunks, [b"\n"]):
        if b"\0" in chunk:
            raise ValueError(f"{path} is not text (it holds a NUL byte near line {number}). {_FORMATS}")
        head, end, tail = (tail + chunk).rpartition(b"\n")
        if len(tail) > LINE_BYTES:
            raise ValueError(f"{path} line {number} is longer than {LINE_BYTES >> 20} MiB. {_FORMATS}")
        if not end:
            continue
        try:
            lines = head.decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            line = number + head.count(b"\n", 0, error.start)
            raise ValueError(
                f"{path} is not UTF-8 text (byte 0x{head[error.start]:02x} in line {line}). "
                f"Convert it with `iconv -f LATIN1 -t UTF-8`, or give another file. {_FORMATS}"
            ) from error
        yield from lines
        number += len(lines)


def _bytes(path: Path, packed: str, advance: Advance) -> Iterator[bytes]:
    """The file's bytes, unpacked."""
    raw = _raw(path, advance)
    if not packed:
        return raw
    if packed == ".gz":
        return _unpacked(path, raw, lambda: zlib.decompressobj(wbits=zlib.MAX_WBITS | 16))
    return _unpacked(path, raw, zstandard.ZstdDecompressor().decompressobj)


def _unpacked(path: Path, raw: Iterator[bytes], start: Callable[[], Any]) -> Iterator[bytes]:
    """Members or frames one after the other. By hand, since zstandard's own reader is silent about a cut file."""
    unpacker, open_frame = start(), False
    for chunk in raw:
        rest = chunk
        while rest:
            try:
                yield unpacker.decompress(rest)
            except (zlib.error, zstandard.ZstdError) as error:
                raise ValueError(
                    f"{path} cannot be unpacked ({error}). Copy it again, or rename it."
                ) from error
            open_frame = not unpacker.eof
            rest = b"" if open_frame else unpacker.unused_data
            unpacker = unpacker if open_frame else start()
    if open_frame:
        raise ValueError(f"{path} ends in the middle: it was cut. Copy it again.")


def _raw(path: Path, advance: Advance) -> Iterator[bytes]:
    """The file as it lies on disk."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder. Name the files in it: {path}/*.txt")
    if not path.exists():
        raise ValueError(f"{path} does not exist. {_FORMATS} Or write {INSTALLED_DOCS}.")
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                advance(len(chunk))
                yield chunk
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}). Give a file you may read.") from error
