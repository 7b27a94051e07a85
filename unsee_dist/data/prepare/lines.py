"""Lines: bytes cut after line ends of any kind: LF, CR LF, and CR alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from unsee_dist.data.prepare.bad_records import BadRecords
from unsee_dist.files.tables import TO_UTF8

# What stands in no text, where bytes are not one with NULs among them: control characters, but for line ends, tabs and the
# colours of a terminal.
_OF_NO_TEXT = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def nul_remedy(data: bytes) -> str:
    """What to do about the NULs in these bytes: to delete them helps only where a text is left."""
    try:
        is_text = not _OF_NO_TEXT.search(data) and bool(data.replace(b"\0", b"").decode("utf-8").strip())
    except UnicodeDecodeError:
        is_text = False
    return (
        "Write `tr -d '\\0' < FILE > NEW` and give NEW, or give another file."
        if is_text
        else "Give a file of text."
    )


def cut_between_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes; no chunk but the last ends in CR, so that CR LF is never apart."""
    held = b""
    for chunk in chunks:
        data = held + chunk if held else chunk
        held = b"\r" if data.endswith(b"\r") else b""
        yield data[:-1] if held else data
    if held:
        yield held


def last_line_end(data: bytes) -> int:
    """The place of the last byte of the last line end; -1: there is none."""
    return max(data.rfind(b"\n"), data.rfind(b"\r"))


def count_line_ends(data: bytes) -> int:
    """The number of line ends."""
    return data.count(b"\n") + (data.count(b"\r") - data.count(b"\r\n") if b"\r" in data else 0)


def with_line_feeds(data: bytes) -> bytes:
    """The same lines, each ended by LF."""
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def decoded_lines(name: str, data: bytes, first_line: int, bad: BadRecords) -> list[str]:
    """The lines of bytes without their ends. One that is not UTF-8 is a bad record, and "" where those are skipped; so is one with a NUL."""
    data = with_line_feeds(data)
    try:
        if b"\0" not in data:
            return data.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        pass  # which line it is in is found below
    lines = enumerate(data.split(b"\n"), start=first_line)
    return [_decoded(name, line, number, bad) for number, line in lines]


def _decoded(name: str, line: bytes, number: int, bad: BadRecords) -> str:
    if b"\0" in line:
        bad.add(f"{name} is not text (it has a NUL byte in line {number})", nul_remedy(line))
        return ""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        bad.add(
            f"{name} is not UTF-8 text (byte 0x{line[error.start]:02x} in line {number})",
            TO_UTF8,
        )
        return ""
