"""Text tables read by the names in their header: .tsv, .csv, .jsonl."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from unsee_dist.errors import UserError
from unsee_dist.files.remote import check_here
from unsee_dist.files.tables import TO_UTF8, table_rows
from unsee_dist.files.trees import parse_json

HALF = re.compile("[\ud800-\udfff]")  # a surrogate alone: JSON can spell it, UTF-8 and tokenizers cannot
TABLES = (".tsv", ".csv", ".jsonl")

TableRow = Mapping[str, object]


def is_table(path: Path) -> bool:
    """By its name, whatever its letters: DEV.TSV is one."""
    return path.suffix.lower() in TABLES


@contextmanager
def setting_named(key: str) -> Iterator[None]:
    """A UserError about a source, which starts with the source's name, says which setting has it: `key = NAME ...`."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{key} = {error}") from error


def columns(
    path: Path, wanted: Sequence[Sequence[str]], lists: Sequence[str] = ()
) -> list[tuple[object, ...]]:
    """The wanted columns of a table, in order; each with the names it may have in the header.

    A cell is a text or a number; in the columns named in `lists`, a list of texts that is not empty. UserError: the
    file is missing, empty, not text, lacks a column or has a row of another width.
    """
    check_here(path, "", "give its path.")
    if not path.is_file():
        raise UserError(f"{path} is not a file. Give the path of a .tsv, .csv or .jsonl file.")
    if not is_table(path):
        raise UserError(f"{path} ends in {path.suffix!r}. Give a .tsv, .csv or .jsonl file.")
    try:
        rows = [row for _, row in _rows(path)]
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}). {TO_UTF8}"
        ) from error
    if not rows:
        raise UserError(f"{path} has no rows. It needs a header and at least one row.")
    return pick(rows, wanted, str(path), lists)


def header(path: Path) -> list[str]:
    """The column names of a table: of a .jsonl, the keys of its first line. UserError as `columns`."""
    if not path.is_file() or not is_table(path):
        raise UserError(f"{path} is not a .tsv, .csv or .jsonl file.")
    try:
        first = next((row for _, row in _rows(path)), None)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}). {TO_UTF8}"
        ) from error
    if first is None:
        raise UserError(f"{path} has no rows. It needs a header and at least one row.")
    return [str(name) for name in first]


def pick(
    rows: Iterable[TableRow], wanted: Sequence[Sequence[str]], source: str, lists: Sequence[str] = ()
) -> list[tuple[object, ...]]:
    """The wanted columns of rows that are dicts; see `columns`."""
    rows = list(rows)
    names_here = [_name(names, list(rows[0]), source) for names in wanted]
    return [
        tuple(_cell(row.get(name), name in lists, f"{source}, row {number}: {name}") for name in names_here)
        for number, row in enumerate(rows, start=1)
    ]


def _cell(cell: object, is_list: bool, where: str) -> object:
    if cell is None:
        raise UserError(f"{where} has no value. Write one, or delete the row.")
    if not is_list and isinstance(cell, dict | list):
        raise UserError(f"{where} is {json.dumps(cell)[:80]}. Write a text or a number.")
    texts = isinstance(cell, list) and cell and all(isinstance(text, str) for text in cell)
    if is_list and not texts:
        raise UserError(f"{where} is not a list of texts. Write a list of at least one text.")
    if any(
        isinstance(text, str) and HALF.search(text) for text in (cell if isinstance(cell, list) else [cell])
    ):
        raise UserError(
            f"{where} has half of a character (\\ud800 to \\udfff), which is not text. Correct it."
        )
    return cell


def _name(names: Sequence[str], header: list[str], source: str) -> str:
    for name in names:
        if name in header:
            return name
    others = ", ".join(map(str, header))
    raise UserError(f"{source} has no column {' or '.join(names)}. Its columns are: {others}. Rename one.")


def place(path: Path, row: int) -> str:
    """PATH, line N: where a row of a table is, by its number from 0. For messages: the file is read again."""
    line, _ = next(islice(_rows(path), row, None))
    return f"{path}, line {line}"


def _rows(path: Path) -> Iterator[tuple[int, TableRow]]:
    """The rows, each with the number of its line, from 1."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        if path.suffix.lower() == ".jsonl":
            yield from _json_rows(lines, path)
            return
        counted = _Counted(lines)
        rows = table_rows(str(path), counted, "," if path.suffix.lower() == ".csv" else "\t")
        header = next(rows)
        twice = next((name for name, count in Counter(header).items() if name and count > 1), None)
        if twice is not None:
            raise UserError(
                f"{path} has {header.count(twice)} columns {twice!r}. Rename one in its first line."
            )
        for row in rows:
            yield counted.number, dict(zip(header, row, strict=True))


class _Counted(Iterator[str]):
    """Lines, and the number of the last one that was taken."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self.number = iter(lines), 0

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        return line


def _json_rows(lines: Iterable[str], path: Path) -> Iterator[tuple[int, TableRow]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number} is not a JSON object. Write one object a line.")
        yield number, row
