"""The logger of the package: lines as they are on stderr, quiet or elsewhere when its user says so."""

from __future__ import annotations

import logging

import pytest

from unsee_dist.distributed.world import World, print_on_rank_0
from unsee_dist.log import LOG, quiet


def test_rank_0_prints_through_the_logger(capsys: pytest.CaptureFixture[str]) -> None:
    world = World.alone()
    print_on_rank_0(world, "100 %s of {it}")
    assert capsys.readouterr().err == "100 %s of {it}\n"
    with quiet("unsee_dist", level=logging.WARNING):
        print_on_rank_0(world, "nobody reads this")
        LOG.warning("this one is read")
    assert capsys.readouterr().err == "this one is read\n"
    assert LOG.level == logging.INFO


def test_a_program_can_take_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    taken: list[str] = []

    class Taker(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            taken.append(record.getMessage())

    handler = Taker()
    LOG.addHandler(handler)
    try:
        LOG.info("once")
    finally:
        LOG.removeHandler(handler)
    assert taken == ["once"]
    assert capsys.readouterr().err == "once\n"


def test_the_levels_of_libraries_are_as_before_also_after_an_error() -> None:
    logging.getLogger("some.library").setLevel(logging.DEBUG)
    inside: list[int] = []

    def fail() -> None:
        with quiet("some.library", "another"):
            inside.append(logging.getLogger("some.library").level)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [logging.ERROR]
    assert logging.getLogger("some.library").level == logging.DEBUG
    assert logging.getLogger("another").level == logging.NOTSET
