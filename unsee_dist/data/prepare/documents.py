"""Documents: lists of raw sentences, of lines of text, lines of JSON, and of what other readers have parsed (columns.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from unsee_dist.data.prepare import lines as cutting
from unsee_dist.data.prepare.bad_records import BadRecords, Skipped
from unsee_dist.data.prepare.encoding import check_text
from unsee_dist.data.prepare.fields import document_from_json
from unsee_dist.data.prepare.formats import (
    FORMATS,
    HEAD_BYTES,
    JSONL,
    TEXT,
    is_json_line,
    json_value,
    markup,
    mostly_records,
    opens_objects,
    table_notice,
)
from unsee_dist.errors import UserError
from unsee_dist.log import LOG

LINE_BYTES = 16 * 1024 * 1024  # a longer line is neither a sentence nor a document, and would fill the memory


class InputSplit(NamedTuple):
    """A part of an input: whole lines of a file, or documents that were parsed already."""

    name: str
    documents: list[list[str]]
    lines: bytes = b""
    first_line: int = 1
    json: bool = False
    skipped: Skipped = Skipped()  # bad records, where documents were parsed already

    def size(self) -> int:
        """Bytes of lines and characters of documents, about."""
        return len(self.lines) + sum(len(sentence) for document in self.documents for sentence in document)


def documents_of(
    split: InputSplit, field: str, line_is_document: bool = True, bad: BadRecords | None = None
) -> Iterator[list[str]]:
    """The documents of a split, without blank lines. UserError names the file and the line.

    line_is_document: a line of text is a document. False: all lines are one, which is faster. bad: absent = stop.
    """
    bad = bad or BadRecords()
    yield from split.documents
    lines = cutting.decoded_lines(split.name, split.lines, split.first_line, bad)
    if split.json:
        for number, line in enumerate(lines, start=split.first_line):
            if line and not line.isspace():
                document = document_from_json(f"{split.name} line {number}", line, field, bad)
                if document is not None:
                    yield document
    elif line_is_document:
        yield from ([line] for line in lines if line and not line.isspace())
    else:
        yield [line for line in lines if line and not line.isspace()]


def cut_lines(name: str, chunks: Iterable[bytes], kind: str, split_bytes: int) -> Iterator[InputSplit]:
    """Lines of this format in splits of whole lines, each but the last of at least split_bytes. UserError when it is not text."""
    parts: list[bytes] = []
    size, open_line, number, has_text = 0, 0, 1, False
    for chunk in cutting.cut_between_lines(_text_only(name, chunks, kind)):
        parts.append(chunk)
        size += len(chunk)
        end = cutting.last_line_end(chunk)
        open_line = open_line + len(chunk) if end < 0 else len(chunk) - end - 1
        if open_line > LINE_BYTES:
            line = number + sum(map(cutting.count_line_ends, parts))
            raise UserError(f"{name} line {line} is longer than {LINE_BYTES >> 20} MiB. {FORMATS}")
        if size - open_line >= split_bytes:
            data = b"".join(parts)
            lines, rest = data[: size - open_line], data[size - open_line :]
            has_text = has_text or not lines.isspace()
            yield InputSplit(name, [], lines, number, kind == JSONL)
            number += cutting.count_line_ends(lines)
            parts, size = [rest], len(rest)
    last = b"".join(parts)
    if not has_text and (not last or last.isspace()):
        raise UserError(f"{name} is empty. {FORMATS}")
    yield InputSplit(name, [], last, number, kind == JSONL)


def _text_only(name: str, chunks: Iterable[bytes], kind: str) -> Iterator[bytes]:
    """The same chunks, after a look at the first bytes. UserError: they are no text, or JSON that is read as sentences."""
    source, first = iter(chunks), list[bytes]()
    while sum(map(len, first)) < HEAD_BYTES and (chunk := next(source, None)) is not None:
        first.append(chunk)
    head = b"".join(first)
    check_text(name, head)
    if kind == TEXT and (what := markup(head)):
        raise UserError(f"{name} is {what}, not text. {FORMATS}")
    if kind == TEXT and (notice := table_notice(name, head)):
        LOG.warning(notice)
    if kind != JSONL and (why := _is_data(name, head, kind)):
        raise UserError(why)
    yield from first
    yield from source


def _is_data(name: str, head: bytes, kind: str) -> str | None:
    """The sentence about JSON, or another kind of records, that is read as sentences; None: it is none."""
    if is_json_line(head):
        return f"{name} line 1 is a JSON object, not a sentence. Name the file .jsonl, and write --field with its key."
    if opens_objects(head):
        return json_value(name, head)
    return mostly_records(name, head) if kind == TEXT else None  # the first cell of a table's row may be one


def cut_documents(
    name: str, documents: Iterable[list[str]], split_bytes: int, bad: BadRecords | None = None
) -> Iterator[InputSplit]:
    """Documents in splits of about split_bytes characters. UserError when there is none. bad: of these documents."""
    bad = bad or BadRecords()
    collected: list[list[str]] = []
    size, ended = 0, False
    for document in documents:
        collected.append(document)
        size += sum(map(len, document))
        if size >= split_bytes:
            yield InputSplit(name, collected, skipped=bad.take())
            collected, size, ended = [], 0, True
    last = InputSplit(name, collected, skipped=bad.take())
    if not last.documents and not last.skipped.number and not ended:
        raise UserError(f"{name} is empty. {FORMATS}")
    yield last


def sentence_splitter(language: str) -> Callable[[list[str]], list[str]]:
    """A function from a document to its sentences, by sentencex (Wikimedia; extra `split`)."""
    import sentencex

    return lambda document: [s for text in document for s in sentencex.segment(language, text) if s.strip()]
