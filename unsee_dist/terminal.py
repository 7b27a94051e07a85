"""What a terminal needs that a file does not: lines that end between words, and one line that the next one replaces.

Nothing here imports more than the standard library. What is not a terminal gets every line whole, as it is.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterable
from typing import TextIO

_NARROWEST = 20  # columns; a terminal that says less does not know its width
_ERASE = "\r\x1b[K"
_waiting = False  # whether the last line on stderr is one that the next replaces


def columns(stream: TextIO) -> int | None:
    """The width of the terminal that a stream writes to; None where it is none."""
    try:
        if not stream.isatty():
            return None
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError, AttributeError):  # a stream without a file, or one that is closed
        return None
    return width if width >= _NARROWEST else None


def wrapped(text: str, width: int | None) -> str:
    """The text in lines of at most `width` columns, ended between words; one word that is longer stays whole."""
    if width is None:
        return text
    return "\n".join(_wrapped_line(line, width) for line in text.split("\n"))


def _wrapped_line(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line.strip(),
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def command(text: str, width: int | None) -> str:
    """A command that can be pasted: where it is wider than the terminal, its lines end in a backslash."""
    if width is None:
        return text
    return wrapped(text, width - 2).replace("\n", " \\\n")


def first_that_fits(texts: Iterable[str], width: int | None) -> str:
    """The first of some texts, from the longest to the shortest, that fits; else the last."""
    text = ""
    for text in texts:
        if width is None or len(text) <= width:
            break
    return text


def show_waiting(text: str) -> bool:
    """Show on stderr what is waited for, in a line that the next one replaces. False: it is no terminal."""
    global _waiting
    width = columns(sys.stderr)
    if width is None:
        return False
    print(f"{_ERASE}{text[: width - 1]}", end="", file=sys.stderr, flush=True)
    _waiting = True
    return True


def clear_waiting() -> None:
    """Remove what `show_waiting` has shown: before anything else is printed."""
    global _waiting
    if _waiting:
        print(_ERASE, end="", file=sys.stderr, flush=True)
        _waiting = False
