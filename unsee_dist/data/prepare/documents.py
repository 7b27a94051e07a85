"""Documents: lists of raw sentences, read from lines of text, lines of JSON, tables and datasets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from typing import NamedTuple

from unsee_dist.data.prepare import opening
from unsee_dist.data.prepare.opening import FORMATS, Advance
from unsee_dist.errors import UserError, is_transient
from unsee_dist.files.tables import table_rows

LINE_BYTES = 16 * 1024 * 1024  # a longer line is neither a sentence nor a document, and would fill the memory
TABLE_ROWS = 4096  # rows of a parquet file read at once


class InputSplit(NamedTuple):
    """The input of one task: whole lines of a file, or documents that were parsed already."""

    name: str
    documents: list[list[str]]
    lines: bytes = b""
    first_line: int = 1
    json: bool = False


def documents_of(split: InputSplit, field: str, line_is_document: bool = True) -> Iterator[list[str]]:
    """The documents of a split, without blank lines. ValueError names the file and the line.

    line_is_document: a line of text is a document. False: all lines are one, which is faster.
    """
    yield from split.documents
    try:
        lines = split.lines.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        number = split.first_line + split.lines.count(b"\n", 0, error.start)
        raise UserError(
            f"{split.name} is not UTF-8 text (byte 0x{split.lines[error.start]:02x} in line {number}). "
            f"Convert it with `iconv -f LATIN1 -t UTF-8`, or give another file. {FORMATS}"
        ) from error
    if split.json:
        for number, line in enumerate(lines, start=split.first_line):
            if line and not line.isspace():
                yield document_from_json(f"{split.name} line {number}", line, field)
    elif line_is_document:
        yield from ([line] for line in lines if line and not line.isspace())
    else:
        yield [line for line in lines if line and not line.isspace()]


def cut_lines(name: str, chunks: Iterable[bytes], is_json: bool, split_bytes: int) -> Iterator[InputSplit]:
    """Text in splits of whole lines, each but the last of at least split_bytes. ValueError when it is not text."""
    parts: list[bytes] = []
    size, open_line, number, has_text = 0, 0, 1, False
    for chunk in chunks:
        if b"\0" in chunk:
            raise UserError(f"{name} is not text (it has a NUL byte near line {number}). {FORMATS}")
        parts.append(chunk)
        size += len(chunk)
        end = chunk.rfind(b"\n")
        open_line = open_line + len(chunk) if end < 0 else len(chunk) - end - 1
        if open_line > LINE_BYTES:
            line = number + sum(part.count(b"\n") for part in parts)
            raise UserError(f"{name} line {line} is longer than {LINE_BYTES >> 20} MiB. {FORMATS}")
        if size - open_line >= split_bytes:
            data = b"".join(parts)
            lines, rest = data[: size - open_line], data[size - open_line :]
            has_text = has_text or not lines.isspace()
            yield InputSplit(name, [], lines, number, is_json)
            number += lines.count(b"\n")
            parts, size = [rest], len(rest)
    last = b"".join(parts)
    if not has_text and (not last or last.isspace()):
        raise UserError(f"{name} is empty. {FORMATS}")
    yield InputSplit(name, [], last, number, is_json)


def cut_documents(name: str, documents: Iterable[list[str]], split_bytes: int) -> Iterator[InputSplit]:
    """Documents in splits of about split_bytes characters. ValueError when there is none."""
    collected: list[list[str]] = []
    size, has_split = 0, False
    for document in documents:
        collected.append(document)
        size += sum(map(len, document))
        if size >= split_bytes:
            yield InputSplit(name, collected)
            collected, size, has_split = [], 0, True
    if not collected and not has_split:
        raise UserError(f"{name} is empty. {FORMATS}")
    yield InputSplit(name, collected)


def read_csv(name: str, chunks: Iterable[bytes], separator: str, field: str) -> Iterator[list[str]]:
    """A column of a table with a header."""
    rows = table_rows(name, _text(name, chunks), separator)
    header = next(rows)
    _check_field(name, field, header)
    column = header.index(field)
    for row in rows:
        yield [row[column]]


def read_parquet(name: str, field: str, advance: Advance) -> Iterator[list[str]]:
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
            raise UserError(f"{name} is not a parquet file ({error}). Copy it again.") from error


def read_dataset(name: str, field: str) -> Iterator[list[str]]:
    """A column of a Hugging Face dataset, streamed. name: dataset:OWNER/NAME[,CONFIG][#SPLIT]; SPLIT is train."""
    from datasets import load_dataset

    address, _, split = name.removeprefix("dataset:").partition("#")
    path, _, config = address.partition(",")
    try:
        rows = load_dataset(path, config or None, split=split or "train", streaming=True)
    except (ValueError, OSError) as error:
        if is_transient(error):
            raise
        first = str(error).partition("\n")[0]
        raise UserError(f"{name} cannot be read ({first}). Write dataset:OWNER/NAME,CONFIG#SPLIT.") from error
    for row in rows:
        _check_field(name, field, list(row))
        yield _document(name, field, row[field])


def _text(name: str, chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines with their line ends, for the csv module."""
    for split in cut_lines(name, chunks, False, 1):
        try:  # not splitlines, which also cuts at other separators
            yield from re.findall("[^\n]*\n|[^\n]+", split.lines.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise UserError(f"{name} is not UTF-8 text (after line {split.first_line}). {FORMATS}") from error


def document_from_json(where: str, line: str, field: str) -> list[str]:
    """The document in one line of jsonl."""
    try:
        value = json.loads(line.lstrip("\ufeff"))
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}). Give one JSON object a line.") from error
    if not isinstance(value, dict):
        raise UserError(
            f"{where} is a JSON {type(value).__name__}, not an object. Give one JSON object a line."
        )
    _check_field(where, field, list(value))
    return _document(where, field, value[field], null=False)


def _check_field(where: str, field: str, fields: list[str]) -> None:
    if field not in fields:
        near = get_close_matches(field, fields, 1) or fields[:1] or ["NAME"]
        raise UserError(
            f"{where} has no field {field!r} (it has {', '.join(fields) or 'none'}). Write --field {near[0]}."
        )


def _document(where: str, field: str, value: object, null: bool = True) -> list[str]:
    if value is None and null:
        return [""]
    document = [value] if isinstance(value, str) else value
    if not isinstance(document, list) or not all(isinstance(sentence, str) for sentence in document):
        raise UserError(
            f"{where}: field {field!r} must hold a string or a list of strings. Choose another --field."
        )
    return document


def sentence_splitter(language: str) -> Callable[[list[str]], list[str]]:
    """A function from a document to its sentences, by sentencex (Wikimedia; extra `split`)."""
    try:
        import sentencex
    except ImportError as error:
        raise UserError(
            "--split sentence needs sentencex. Write `pip install 'unsee_dist[split]'`."
        ) from error
    return lambda document: [s for text in document for s in sentencex.segment(language, text) if s.strip()]
