"""Rows of a table with a header: quotes as in RFC 4180 with commas, none with tabs."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from unsee_dist.errors import UserError

CELL = 16 * 1024 * 1024  # characters; a longer cell is no text, or a quotation mark is not closed
# Not LATIN1, in which any bytes are legal: of curly quotes it makes control characters.
TO_UTF8 = "Convert it with `iconv -f ENCODING -t UTF-8`, where ENCODING is WINDOWS-1252 for most Western text and GB18030 for Chinese."
# What is left of bytes that are not UTF-8, where they were decoded by "surrogateescape".
_NOT_DECODED = re.compile("[\udc80-\udcff]")


def _stop(what: str, remedy: str) -> None:
    raise UserError(f"{what}. {remedy}")


def table_rows(
    name: str, lines: Iterable[str], separator: str, refuse: Callable[[str, str], None] = _stop
) -> Iterator[list[str]]:
    """The header (stripped; [] of an empty table), then the rows, each as wide; blank lines are left out.

    lines: with their ends. refuse: called with what is wrong and the remedy for a line that is no row; when it returns, the
    table goes on with the next line. By default it raises UserError.
    """
    # Of the process, since csv has no limit of a reader's own; raised and never lowered, so that readers side by side
    # do not take it from each other. The module's own is 128 KiB, less than a long document.
    csv.field_size_limit(max(CELL, csv.field_size_limit()))
    quotes = separator == ","
    source = _Lines(lines)
    rows = csv.reader(
        source, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE, strict=True
    )
    quoted = "Correct that line, or quote the cell with the separator."
    width = None
    while True:
        first = source.begin_row()
        try:
            row = next(rows, None)
        except csv.Error as error:
            source.back()
            complain = refuse if width is not None else _stop  # without a header there is no table
            complain(f"{name} line {first} is not a table row ({error})", "Correct that line.")
            continue
        if row is None:
            break
        if width is None:
            width = len(row)
            yield [title.strip() for title in row]
        elif row and len(row) != width:
            source.back()
            why = f"has {len(row)} columns, its header {width}"
            refuse(f"{name} line {first} {why}", quoted if quotes else "Correct that line.")
        elif not (cells := "".join(row)).isascii() and _NOT_DECODED.search(cells):
            refuse(f"{name} line {first} is not UTF-8 text", TO_UTF8)
        elif row:
            yield row
    if width is None:
        yield []


class _Lines(Iterator[str]):
    """The lines of a table. Those of a row that is none can be read again but for the first: a quotation mark that is not
    closed has taken the rows after it."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self._again, self._row, self._number = iter(lines), deque[str](), list[str](), 0

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self._row.append(line)
        self._number += 1
        return line

    def begin_row(self) -> int:
        """The number of the line that comes next, from 1."""
        self._row.clear()
        return self._number + 1

    def back(self) -> None:
        self._again.extendleft(reversed(self._row[1:]))
        self._number -= max(len(self._row) - 1, 0)
