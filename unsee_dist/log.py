"""The logger `unsee_dist`: every line for people goes through it, from rank 0 or from a command.

Its lines go to stderr as they are, without a prefix. It is an ordinary logger of Python's: in your own program,
`logging.getLogger("unsee_dist").setLevel("WARNING")` keeps it quiet, and a handler of yours takes the lines elsewhere.
What a rank prints when it dies (errors.report, the watchdog) does not wait for a handler: it goes to stderr directly.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from unsee_dist.masking import masked

LOG = logging.getLogger("unsee_dist")


class _Printer(logging.Handler):
    """Prints on stderr, whatever sys.stderr is at that moment, or hands a line to the newest of `takers`."""

    def __init__(self) -> None:
        super().__init__()
        self.takers: list[logging.Handler] = []

    def emit(self, record: logging.LogRecord) -> None:
        if self.takers:
            self.takers[-1].emit(record)
        else:
            print(record.getMessage(), file=sys.stderr, flush=True)


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
