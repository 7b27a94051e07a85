"""On a terminal nothing is split inside a word, and what is waited for leaves no trace; a file gets every line whole."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import pty
import re
import select
import shlex
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from unsee_dist import log, terminal
from unsee_dist.errors import UserError, report

WORDS = "the run's settings are in /a/very/long/path-with-hyphens/and more words than fit into so few columns here"


@contextmanager
def on_screen() -> Iterator[int]:
    """stderr is a terminal of 40 columns; `printed` reads from the value."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        before, sys.stderr = sys.stderr, stream
        try:
            yield master
        finally:
            sys.stderr = before
    os.close(master)


def printed(master: int) -> str:
    """What has been printed since: a terminal passes it on a moment later."""
    text = b""
    while select.select([master], [], [], 0.2)[0]:
        text += os.read(master, 1 << 16)
    return text.decode()


@pytest.mark.parametrize("width", [20, 30, 40, 80])
def test_lines_end_between_words_and_lose_nothing(width: int) -> None:
    lines = terminal.wrapped(WORDS, width).split("\n")
    assert " ".join(lines).split() == WORDS.split()
    longest = max(map(len, WORDS.split())) + 2
    assert all(len(line) <= max(width, longest) for line in lines)
    assert terminal.wrapped(WORDS, None) == WORDS


def test_a_wrapped_table_keeps_its_indentation() -> None:
    wrapped = terminal.wrapped("short\n  key  " + "word " * 10, 30).split("\n")
    assert wrapped[0] == "short"
    assert wrapped[1].startswith("  key")
    assert all(line.startswith("    word") for line in wrapped[2:])


def test_a_wrapped_command_is_still_one_command() -> None:
    line = (
        "unsee train unsee-vicreg data.shards='a folder' evaluate.retrieval=data/mine/dev.tsv train.lr=1e-4"
    )
    for width in (30, 50, 80, None):
        shown = terminal.command(line, width)
        assert shlex.split(shown.replace("\\\n", " ")) == shlex.split(line)
        assert width is None or all(len(each) <= max(width, 40) for each in shown.split("\n"))


def test_the_longest_text_that_fits_is_taken() -> None:
    texts = ["a long text", "a text", "text"]
    assert [terminal.first_that_fits(texts, width) for width in (None, 11, 10, 4, 1)] == [
        "a long text", "a long text", "a text", "text", "text",
    ]  # fmt: skip


def test_what_is_waited_for_is_replaced_by_the_next_line() -> None:
    with on_screen() as screen:
        log.say_waiting("loading torch")
        assert printed(screen) == "\r\x1b[Kloading torch ..."
        log.LOG.info(WORDS)
        text = printed(screen)
        assert text.startswith("\r\x1b[K")
        assert re.sub(r"\s+", " ", text.removeprefix("\r\x1b[K")).strip() == WORDS
        assert max(map(len, text.removeprefix("\r\x1b[K").split("\r\n"))) <= 40
        with log.waiting("reading"):
            pass
        assert printed(screen) == "\r\x1b[Kreading ...\r\x1b[K"
        log.say_waiting("a rank among several", alone=False)
        assert printed(screen) == "a rank among several ...\r\n"
        with log.waiting("looking"):
            report(UserError("a sentence"))
        assert printed(screen).endswith("\r\x1b[Ka sentence\r\n")


def test_a_file_gets_what_is_waited_for_as_lines_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    log.say_waiting("loading torch")
    log.LOG.info(WORDS)
    with log.waiting("nothing of a log"):
        pass
    assert out.getvalue() == f"loading torch ...\n{WORDS}\n"


def test_quiet_says_warnings_alone() -> None:
    with on_screen() as screen:
        try:
            log.be_quiet()
            log.say_waiting("loading torch")
            log.LOG.info("a line")
            with log.waiting("more"):
                log.LOG.warning("careful")
        finally:
            log.LOG.setLevel(logging.INFO)
        assert printed(screen) == "careful\r\n"
