"""The logger `unsee_dist`: every line for people goes through it, from rank 0 or from a command.

Its lines go to stderr as they are, without a prefix; on a terminal they end between words. It is an ordinary logger of Python's: in your own program,
`logging.getLogger("unsee_dist").setLevel("WARNING")` keeps it quiet, and a handler of yours takes the lines elsewhere.
What a rank prints when it dies (errors.report, the watchdog) does not wait for a handler: it goes to stderr directly.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from unsee_dist import terminal
from unsee_dist.masking import masked

if TYPE_CHECKING:
    from rich.console import Console

LOG = logging.getLogger("unsee_dist")


class _Printer(logging.Handler):
    """Prints on what sys.stderr is at that moment, or hands a line to the newest of `takers`."""

    def __init__(self) -> None:
        super().__init__()
        self.takers: list[logging.Handler] = []

    def emit(self, record: logging.LogRecord) -> None:
        if self.takers:
            self.takers[-1].emit(record)
        else:
            terminal.clear_waiting()
            text = terminal.wrapped(record.getMessage(), terminal.columns(sys.stderr))
            print(text, file=sys.stderr, flush=True)


def _mask(record: logging.LogRecord) -> bool:
    """Passwords in an address are for no handler."""
    record.msg, record.args = masked(record.getMessage()), None
    return True


_PRINTER = _Printer()
LOG.addHandler(_PRINTER)
LOG.addFilter(_mask)
LOG.setLevel(logging.INFO)
LOG.propagate = False  # a root handler of another library would print each line again


@contextmanager
def printed_by(handler: logging.Handler) -> Iterator[None]:
    """`handler` prints the lines instead of stderr for the time of the block."""
    _PRINTER.takers.append(handler)
    try:
        yield
    finally:
        _PRINTER.takers.remove(handler)


@contextmanager
def quiet(*libraries: str, level: int = logging.ERROR) -> Iterator[None]:
    """Loggers of libraries say nothing below `level` for the time of the block; afterwards their levels are as before."""
    loggers = [logging.getLogger(name) for name in libraries]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, before in zip(loggers, levels, strict=True):
            logger.setLevel(before)


def be_quiet() -> None:
    """Print warnings and errors only (-q)."""
    LOG.setLevel(logging.WARNING)


def is_quiet() -> bool:
    return not LOG.isEnabledFor(logging.INFO)


def progress_console() -> Console:
    """Where a command shows how far it is: stderr, and nothing there under -q. rich costs 0.1 s, so only where it is used."""
    from rich.console import Console

    return Console(stderr=True, markup=False, emoji=False, highlight=False, quiet=is_quiet())


def say_waiting(what: str, alone: bool = True) -> None:
    """Say what this process waits for. On a terminal of its own in a line that the next line replaces, elsewhere in a line
    that stays: the last one in a log then says where a start hangs. alone: no other process prints on this terminal."""
    if is_quiet():
        return
    if not (alone and not _PRINTER.takers and terminal.show_waiting(f"{what} ...")):
        LOG.info("%s ...", what)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """On a terminal, say for the time of the block what it waits for, unless another line has replaced it."""
    if not is_quiet():
        terminal.show_waiting(f"{what} ...")
    try:
        yield
    finally:
        terminal.clear_waiting()
