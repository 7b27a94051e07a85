"""Rows of a table with a header: quotes as in RFC 4180 with commas, none with tabs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator

from unsee_dist.errors import UserError

CELL = 16 * 1024 * 1024  # characters; a longer cell is no text, or a quotation mark is not closed


def table_rows(name: str, lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    """The header (stripped; [] of an empty table), then the rows, each as wide; blank lines are left out.

    lines: with their ends. UserError names a line that is no row.
    """
    # Of the process, since csv has no limit of a reader's own; raised and never lowered, so that readers side by side
    # do not take it from each other. The module's own is 128 KiB, less than a long document.
    csv.field_size_limit(max(CELL, csv.field_size_limit()))
    remedy = (
        "Correct that line, or quote the cell with the separator."
        if separator == ","
        else "Correct that line."
    )
    if separator == ",":
        rows = csv.reader(lines, strict=True)
    else:
        rows = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE, strict=True)
    try:
        header = [title.strip() for title in next(rows, [])]
        yield header
        for row in rows:
            if row and len(row) != len(header):
                raise UserError(
                    f"{name} line {rows.line_num} has {len(row)} columns, its header {len(header)}. {remedy}"
                )
            if row:
                yield row
    except csv.Error as error:
        raise UserError(
            f"{name} line {rows.line_num} is no table row ({error}). Correct that line."
        ) from error
