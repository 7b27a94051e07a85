"""Documents: lists of raw sentences, out of lines of text, lines of JSON, tables and datasets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from typing import Any, NamedTuple

from unsee_dist.data.prepare import opening
from unsee_dist.data.prepare.opening import FORMATS, Advance
from unsee_dist.errors import UserError
from unsee_dist.files.tables import table_rows

LINE_BYTES = 16 * 1024 * 1024  # a longer line is no sentence and no document, and would fill the memory
TABLE_ROWS = 4096  # rows of a parquet file read at once


class InputSplit(NamedTuple):
    """What one process cleans at once: whole lines as they lie in a file, or documents that had to be parsed."""

    name: str
    documents: list[list[str]]
    lines: bytes = b""
    first_line: int = 1
    json: bool = False


def documents_of(piece: InputSplit, field: str, apart: bool = True) -> Iterator[list[str]]:
    """The piece's documents; without blank lines. ValueError names the file and the line.

    apart: a line of text is a document. False: all lines are one, which is faster where nobody asks.
    """
    yield from piece.documents
    try:
        lines = piece.lines.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        number = piece.first_line + piece.lines.count(b"\n", 0, error.start)
        raise UserError(
            f"{piece.name} is not UTF-8 text (byte 0x{piece.lines[error.start]:02x} in line {number}). "
            f"Convert it with `iconv -f LATIN1 -t UTF-8`, or give another file. {FORMATS}"
        ) from error
    if piece.json:
        for number, line in enumerate(lines, start=piece.first_line):
            if line and not line.isspace():
                yield of_json(f"{piece.name} line {number}", line, field)
    elif apart:
        yield from ([line] for line in lines if line and not line.isspace())
    else:
        yield [line for line in lines if line and not line.isspace()]


def cut_lines(name: str, chunks: Iterable[bytes], is_json: bool, piece_bytes: int) -> Iterator[InputSplit]:
    """Text in pieces of whole lines, at least piece_bytes each but the last. ValueError for what is no text."""
    parts: list[bytes] = []
    size, open_line, number, found = 0, 0, 1, False
    for chunk in chunks:
        if b"\0" in chunk:
            raise UserError(f"{name} is not text (it holds a NUL byte near line {number}). {FORMATS}")
        parts.append(chunk)
        size += len(chunk)
        end = chunk.rfind(b"\n")
        open_line = open_line + len(chunk) if end < 0 else len(chunk) - end - 1
        if open_line > LINE_BYTES:
            line = number + sum(part.count(b"\n") for part in parts)
            raise UserError(f"{name} line {line} is longer than {LINE_BYTES >> 20} MiB. {FORMATS}")
        if size - open_line >= piece_bytes:
            data = b"".join(parts)
            lines, rest = data[: size - open_line], data[size - open_line :]
            found = found or not lines.isspace()
            yield InputSplit(name, [], lines, number, is_json)
            number += lines.count(b"\n")
            parts, size = [rest], len(rest)
    last = b"".join(parts)
    if not found and (not last or last.isspace()):
        raise UserError(f"{name} is empty. {FORMATS}")
    yield InputSplit(name, [], last, number, is_json)


def cut_documents(name: str, documents: Iterable[list[str]], piece_bytes: int) -> Iterator[InputSplit]:
    """Documents in pieces of about piece_bytes characters. ValueError when there is none."""
    held: list[list[str]] = []
    size, found = 0, False
    for document in documents:
        held.append(document)
        size += sum(map(len, document))
        if size >= piece_bytes:
            yield InputSplit(name, held)
            held, size, found = [], 0, True
    if not held and not found:
        raise UserError(f"{name} is empty. {FORMATS}")
    yield InputSplit(name, held)


def of_csv(name: str, chunks: Iterable[bytes], separator: str, field: str) -> Iterator[list[str]]:
    """A column of a table with a header."""
    rows = table_rows(name, _text(name, chunks), separator)
    header = next(rows)
    _check_field(name, field, header)
    column = header.index(field)
    for row in rows:
        yield [row[column]]


def of_parquet(name: str, field: str, advance: Advance) -> Iterator[list[str]]:
    """A column of a parquet file; null is an empty sentence."""
    import pyarrow
    import pyarrow.parquet

    with opening.opened(name) as file:
        size = file.seek(0, 2)
        try:
            table = pyarrow.parquet.ParquetFile(file)
            _check_field(name, field, table.schema_arrow.names)
            for batch in table.iter_batches(TABLE_ROWS, columns=[field]):
                advance(size * batch.num_rows // table.metadata.num_rows)
                for value in batch.column(0).to_pylist():
                    yield _document(name, field, value)
        except pyarrow.ArrowException as error:
            raise UserError(f"{name} is no parquet file ({error}). Copy it again.") from error


def of_dataset(name: str, field: str) -> Iterator[list[str]]:
    """A column of a Hugging Face dataset, streamed. name: dataset:OWNER/NAME[,CONFIG][#SPLIT]; SPLIT is train."""
    from datasets import load_dataset

    address, _, split = name.removeprefix("dataset:").partition("#")
    path, _, config = address.partition(",")
    try:
        rows = load_dataset(path, config or None, split=split or "train", streaming=True)
    except (ValueError, OSError) as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"{name} cannot be read ({first}). Write dataset:OWNER/NAME,CONFIG#SPLIT.") from error
    for row in rows:
        _check_field(name, field, list(row))
        yield _document(name, field, row[field])


def _text(name: str, chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines with their ends, as the csv module wants them."""
    for piece in cut_lines(name, chunks, False, 1):
        try:  # not splitlines: it also cuts at separators that are no line ends
            yield from re.findall("[^\n]*\n|[^\n]+", piece.lines.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise UserError(f"{name} is not UTF-8 text (after line {piece.first_line}). {FORMATS}") from error


def of_json(where: str, line: str, field: str) -> list[str]:
    """The document in one line of jsonl."""
    try:
        record = json.loads(line.lstrip("\ufeff"))
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}). Give one JSON object a line.") from error
    if not isinstance(record, dict):
        raise UserError(
            f"{where} is a JSON {type(record).__name__}, not an object. Give one JSON object a line."
        )
    _check_field(where, field, list(record))
    return _document(where, field, record[field], null=False)


def _check_field(where: str, field: str, fields: list[str]) -> None:
    if field not in fields:
        near = get_close_matches(field, fields, 1) or fields[:1] or ["NAME"]
        raise UserError(
            f"{where} has no field {field!r} (it has {', '.join(fields) or 'none'}). Write --field {near[0]}."
        )


def _document(where: str, field: str, value: Any, null: bool = True) -> list[str]:
    if value is None and null:
        return [""]
    document = [value] if isinstance(value, str) else value
    if not isinstance(document, list) or not all(isinstance(sentence, str) for sentence in document):
        raise UserError(
            f"{where}: field {field!r} must hold a string or a list of strings. Choose another --field."
        )
    return document


def splitter(language: str) -> Callable[[list[str]], list[str]]:
    """A function from a document to its sentences, by sentencex (Wikimedia; extra `split`)."""
    try:
        import sentencex
    except ImportError as error:
        raise UserError(
            "--split sentence needs sentencex. Write `pip install 'unsee_dist[split]'`."
        ) from error
    return lambda document: [s for text in document for s in sentencex.segment(language, text) if s.strip()]
