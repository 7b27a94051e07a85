"""A process of a pool that was killed is a sentence; one that crashed, could not start or sent what nobody can read is a bug."""

from __future__ import annotations

import os
import signal
from concurrent.futures.process import BrokenProcessPool

import pytest

from unsee_dist.data import processes
from unsee_dist.data.processes import worker_pool
from unsee_dist.errors import ExitCode, exit_code_of, report


class Lost(Exception):
    """One that pickle writes and cannot read."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def _end_by(number: int) -> None:
    os.kill(os.getpid(), number)


def _raise_lost(_: int) -> None:
    raise Lost("what", "happened")


def _fail_to_start() -> None:
    raise KeyError("planted")


def test_a_killed_process_is_a_sentence() -> None:
    with pytest.raises(ChildProcessError, match="was killed, perhaps for its memory"), worker_pool(2) as work:
        list(work(_end_by, [signal.SIGKILL] * 2))


def test_a_crashed_process_is_a_bug() -> None:
    with pytest.raises(BrokenProcessPool) as met, worker_pool(2) as work:
        list(work(_end_by, [signal.SIGSEGV] * 2))
    assert exit_code_of(met.value) is ExitCode.BUG
    assert str(-signal.SIGSEGV) in met.value.__notes__[0]


def test_an_error_that_cannot_be_read_is_a_bug_with_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BrokenProcessPool) as met, worker_pool(2) as work:
        list(work(_raise_lost, [1, 2]))
    assert report(met.value) is ExitCode.BUG
    assert "missing 1 required positional argument: 'second'" in capsys.readouterr().err


def test_a_process_that_does_not_start_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "end_with_parent", _fail_to_start)
    with pytest.raises(BrokenProcessPool) as met, worker_pool(2) as work:
        list(work(abs, [1, 2]))
    assert exit_code_of(met.value) is ExitCode.BUG
