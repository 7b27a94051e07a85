"""Columns: the documents in a column of csv, tsv, parquet and of Hugging Face datasets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from unsee_dist.data.prepare import documents, opening
from unsee_dist.data.prepare.bad_records import BadRecords
from unsee_dist.data.prepare.fields import document, hint, missing
from unsee_dist.data.prepare.formats import CSV, last_suffix, suffixes
from unsee_dist.data.prepare.lines import count_line_ends, nul_remedy, with_line_feeds
from unsee_dist.data.prepare.opening import Advance
from unsee_dist.errors import UserError, is_transient
from unsee_dist.files.hub import is_load_error, load_failure, reason
from unsee_dist.files.tables import TO_UTF8, table_rows

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

MOST_WORDS = 6  # of the name of a column
SHOWN_CHARACTERS = 60
TABLE_ROWS = 4096  # rows of a parquet file read at once
_LINE = re.compile("[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")  # not splitlines, which also cuts at other separators
_SEPARATORS = {";": "a semicolon", "\t": "a tab", "|": "a bar", ",": "a comma"}


def read_csv(
    name: str, chunks: Iterable[bytes], separator: str, field: str, bad: BadRecords
) -> Iterator[list[str]]:
    """A column of a table with a header."""
    rows = table_rows(name, _text(name, chunks, bad), separator, bad.add)
    header = next(rows)
    first = next(rows, None)
    _check_header(name, field, separator, header, first or [""] * len(header))
    column = header.index(field)
    if first is not None:
        yield [first[column]]
    for row in rows:
        yield [row[column]]


def _check_header(name: str, field: str, separator: str, header: list[str], first: list[str]) -> None:
    """UserError unless one column has the field's name."""
    if header.count(field) > 1:
        raise UserError(f"{name} has {header.count(field)} columns {field!r}. Rename one in its first line.")
    if field in header:
        return
    data = next((cell for cell in header if _is_data(cell)), None)
    prose = data is not None and not re.search(
        r"[;\t|,](?! |$)", header[0]
    )  # a comma in a sentence has a space after it
    other = next((name for mark, name in _SEPARATORS.items() if len(header) == 1 and mark in header[0]), None)
    if other and not prose:
        raise UserError(
            f"{name} has one column, {header[0]!r}: {other} separates its values. Name it .tsv where that is a tab and "
            ".csv where it is a comma; write it with one of them where it is another."
        )
    if data is not None:
        new = f"NEW{last_suffix(name) or '.csv'}"
        named = hint(field, dict(zip(header, first, strict=True)))
        raise UserError(
            f"{name} has no column {field!r}, and its first line looks like data ({data[:SHOWN_CHARACTERS]!r}), not like names of "
            f"columns. Write `{_with_header(name, field, separator, header, first)} > {new}`, and give {new}. Where it does name the "
            f"columns: {named}"
        )
    if wrong := missing(name, field, dict(zip(header, first, strict=True))):
        raise UserError(". ".join(wrong))


def _is_data(cell: str) -> bool:
    """Whether a cell of a first line is a sentence or a measured number: names of columns are shorter."""
    words, end = len(cell.split()), cell.rstrip("\"'")[-1:]
    return (
        (words > 1 and end in ".!?…。！？")
        or words > MOST_WORDS
        or re.fullmatch(r"-?\d+\.\d+", cell) is not None
    )


def _with_header(name: str, field: str, separator: str, header: list[str], first: list[str]) -> str:
    """The command that puts names of columns before a table: the longest cells are the text."""
    columns = [f"column{place}" for place in range(1, len(header) + 1)]
    columns[max(range(len(header)), key=lambda place: len(header[place]) + len(first[place]))] = field
    line = separator.replace("\t", "\\t").join(["%s"] * len(columns))
    program = {".gz": "zcat", ".zst": "zstdcat"}.get("".join(suffixes(name)[-1:]), "cat")
    return f"(printf '{line}\\n' {shlex.join(columns)}; {program} {shlex.quote(name)})"


def read_parquet(name: str, field: str, advance: Advance, bad: BadRecords) -> Iterator[list[str]]:
    """A column of a parquet file; null is an empty sentence."""
    import pyarrow
    import pyarrow.parquet

    with opening.opened(name) as file:
        size, place = file.seek(0, 2), 0
        try:
            table = pyarrow.parquet.ParquetFile(file)
            _check_column(name, field, table)
            for batch in table.iter_batches(TABLE_ROWS, columns=[field]):
                advance(size * batch.num_rows // table.metadata.num_rows)
                for row, value in enumerate(_values(batch.column(0)), start=place + 1):
                    texts = _of_value(f"{name} row {row}", field, value, bad)
                    if texts is not None:
                        yield texts
                place += batch.num_rows
        except (pyarrow.ArrowException, OSError, MemoryError, OverflowError, UnicodeDecodeError) as error:
            if is_transient(error):
                raise
            why = str(error).partition("\n")[0]
            raise UserError(
                f"{name} is not a parquet file that can be read ({why}). Copy it again."
            ) from error


def _check_column(name: str, field: str, table: pyarrow.parquet.ParquetFile) -> None:
    """UserError unless the file has a column of this name. Of the others, those of text are shown in the hint."""
    if (count := table.schema_arrow.names.count(field)) > 1:
        raise UserError(f"{name} has {count} columns {field!r}. Rename one.")
    if field in table.schema_arrow.names:
        return
    with_text = {each.name: "text" if "string" in str(each.type) else None for each in table.schema_arrow}
    if wrong := missing(name, field, with_text):
        raise UserError(". ".join(wrong))


def _values(column: pyarrow.Array) -> list[object]:
    """The values of a column. Text that is not UTF-8 is given as its bytes."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [_value(cell) for cell in column]


def _value(cell: pyarrow.Scalar) -> object:
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        return error


def _of_value(where: str, field: str, value: object, bad: BadRecords) -> list[str] | None:
    """The document of a cell: null is an empty one. None of a bad record that is skipped."""
    if value is None:
        return [""]
    if isinstance(value, UnicodeDecodeError):
        bad.add(f"{where} is not UTF-8 text", "Correct it.")
        return None
    return document(where, field, {field: value}, bad)


def read_dataset(name: str, field: str, bad: BadRecords) -> Iterator[list[str]]:
    """A column of a Hugging Face dataset, streamed. name: dataset:OWNER/NAME[,CONFIG][#SPLIT]; SPLIT is train."""
    from datasets import load_dataset

    address, _, split = name.removeprefix("dataset:").partition("#")
    path, _, config = address.partition(",")
    try:
        rows = load_dataset(path, config or None, split=split or "train", streaming=True)
    except Exception as error:
        if not is_load_error(error, RuntimeError):  # "Dataset scripts are no longer supported"
            raise
        sentence = f"{name} cannot be read ({reason(error)}). Write dataset:OWNER/NAME,CONFIG#SPLIT."
        raise load_failure(sentence, error) from error
    with opening.errors_as_sentences(name):
        for number, row in enumerate(rows, start=1):
            if wrong := missing(name, field, row):
                raise UserError(". ".join(wrong))
            texts = _of_value(f"{name} row {number}", field, row[field], bad)
            if texts is not None:
                yield texts


def _text(name: str, chunks: Iterable[bytes], bad: BadRecords) -> Iterator[str]:
    """Lines with their line ends, for the csv module. Where bad records are skipped, bytes that are not UTF-8 are escaped."""
    for split in documents.cut_lines(name, chunks, CSV, 1):
        if b"\0" in split.lines:
            line = split.first_line + count_line_ends(split.lines[: split.lines.index(b"\0")])
            wrong = with_line_feeds(split.lines).split(b"\n")[line - split.first_line]
            raise UserError(f"{name} is not text (it has a NUL byte in line {line}). {nul_remedy(wrong)}")
        try:
            text = split.lines.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = split.first_line + count_line_ends(error.object[: error.start])
            if not bad.skip:
                bad.add(
                    f"{name} is not UTF-8 text (byte 0x{error.object[error.start]:02x} in line {line})",
                    TO_UTF8,
                )
            text = split.lines.decode("utf-8-sig", errors="surrogateescape")
        yield from _LINE.findall(text)
