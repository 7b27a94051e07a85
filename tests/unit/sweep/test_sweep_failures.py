"""What failed a trial: a bug and a mistake are not tried again, a passing fault and a lost rank are; the worst is the exit code."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

from unsee_dist.errors import REPORT_TO, ExitCode, TransientError, UserError
from unsee_dist.sweep import ledger
from unsee_dist.sweep.failures import (
    begin_attempt,
    describe_failures,
    forget_failures,
    read_failures,
    write_failure,
)
from unsee_dist.sweep.ledger import Goal, LedgerRow
from unsee_dist.sweep.search import exit_code
from unsee_dist.sweep.study import TrialState
from unsee_dist.sweep.trial import DriverProcess, _enter, trial_folder
from unsee_dist.sweep.tune import read_error

GOAL = Goal("dev/sts", "max", trials=1, steps=40)


def raised(error: Exception) -> Exception:
    """The error with a traceback, as it is caught."""
    try:
        raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "code", "again"),
    [
        (KeyError("planted"), ExitCode.BUG, False),
        (ValueError("planted"), ExitCode.BUG, False),
        (UserError("planted: write another"), ExitCode.MISTAKE, False),
        (OSError(errno.ENOSPC, "planted", "x"), ExitCode.MISTAKE, False),
        (OSError(errno.EIO, "planted"), ExitCode.TRANSIENT, True),
        (TransientError("planted"), ExitCode.TRANSIENT, True),
    ],
)
def test_only_what_passes_is_tried_again(
    tmp_path: Path, error: Exception, code: ExitCode, again: bool
) -> None:
    write_failure(tmp_path / "trial", 1, raised(error))
    (failure,) = read_failures(tmp_path / "trial")
    assert (failure.rank, failure.code) == (1, code)
    assert ("Traceback" in failure.traceback) == (code is not ExitCode.MISTAKE)
    why = begin_attempt(tmp_path / "trial")
    assert (why is None) == again
    assert bool(read_failures(tmp_path / "trial")) != again  # of the attempt before: forgotten
    if why is not None:
        assert why.startswith("rank 1: ")
        forget_failures(tmp_path / "trial")  # what the next start of the sweep does
        assert begin_attempt(tmp_path / "trial") is None


def test_a_trial_without_a_folder_begins(tmp_path: Path) -> None:
    assert begin_attempt(tmp_path / "none") is None


def test_a_bug_is_named_before_what_followed_from_it(tmp_path: Path) -> None:
    write_failure(tmp_path, 0, raised(TransientError("the store does not answer")))
    write_failure(tmp_path, 10, raised(UserError("a mistake")))
    write_failure(tmp_path, 2, raised(KeyError("planted")))
    failures = read_failures(tmp_path)
    assert [failure.rank for failure in failures] == [2, 10, 0]
    text = describe_failures("7", tmp_path, failures)
    assert "Traceback" in text
    assert "KeyError: 'planted'\ntrial 7, rank 2: this is a bug of unsee_dist" in text
    assert text.endswith(REPORT_TO)


def test_the_ledger_says_the_rank_and_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_failure(trial_folder(tmp_path, "a"), 1, raised(KeyError("planted")))
    states = [
        TrialState("a", "PENDING", {}, {}, None),  # Tune would try it again
        TrialState("b", "ERROR", {}, {}, "Ray's own\nText: boom"),
    ]
    ledger.watch(tmp_path, GOAL, states)
    rows = ledger.read(tmp_path)
    assert [(row.why, row.exit_code) for row in rows] == [
        ("rank 1: KeyError: 'planted'", ExitCode.BUG),
        ("Text: boom", ExitCode.RANK_LOST),
    ]
    shown = capsys.readouterr().err
    assert shown.count("Traceback") == 1
    assert "trial 1, rank 1: this is a bug of unsee_dist" in shown
    assert "Ray's own\nText: boom\ntrial 2 failed, see above" in shown
    ledger.watch(tmp_path, GOAL, states)
    assert capsys.readouterr().err == ""
    forget_failures(trial_folder(tmp_path, "a"))
    ledger.watch(tmp_path, GOAL, states)
    assert ledger.read(tmp_path)[0].status == "waiting"


@pytest.mark.parametrize(
    ("codes", "worst"),
    [
        ((), ExitCode.COMPLETE),
        ((0, 0), ExitCode.COMPLETE),
        ((0, 3), ExitCode.RANK_LOST),
        ((3, 74), ExitCode.TRANSIENT),
        ((74, 2, 3), ExitCode.MISTAKE),
        ((2, 1, 0), ExitCode.BUG),
    ],
)
def test_the_exit_code_of_a_sweep_is_its_worst(codes: tuple[int, ...], worst: ExitCode) -> None:
    rows = [
        LedgerRow(n, str(n), "failed" if code else "complete", {}, exit_code=ExitCode(code))
        for n, code in enumerate(codes)
    ]
    assert exit_code(rows) is worst


class Copied:
    """A trial whose error Ray is copying to its folder: of each file, what a reader sees."""

    def __init__(self, pickled: object, text: object) -> None:
        self.pickled, self.text = pickled, text

    def get_pickled_error(self) -> object:
        return self._seen(self.pickled)

    def get_error(self) -> object:
        return self._seen(self.text)

    @staticmethod
    def _seen(content: object) -> object:
        if isinstance(content, bytes):
            return pickle.loads(content)
        if isinstance(content, FileNotFoundError):
            raise content
        return content


WHOLE = pickle.dumps(RuntimeError("rank 1 has failed"))


@pytest.mark.parametrize(
    ("pickled", "text", "sentence"),
    [
        (WHOLE, None, "rank 1 has failed"),
        (b"", RuntimeError("as text"), "as text"),  # made, and nothing in it yet
        (WHOLE[:-4], RuntimeError("as text"), "as text"),
        (FileNotFoundError("gone"), RuntimeError("as text"), "as text"),
        (None, None, ""),
        (b"", None, ""),
        (b"", FileNotFoundError("gone"), ""),
    ],
)
def test_an_error_that_ray_is_still_copying_is_read_as_far_as_it_is_there(
    pickled: object, text: object, sentence: str
) -> None:
    assert read_error(Copied(pickled, text)) == sentence


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, UserError),
        (errno.EACCES, UserError),
        (errno.EIO, TransientError),
        (errno.ESTALE, TransientError),
    ],
)
def test_a_folder_that_a_worker_cannot_enter(monkeypatch, number: int, kind: type[Exception]) -> None:
    def refused(_: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "chdir", refused)
    with pytest.raises(kind, match="/shared/work cannot be entered here"):
        _enter(DriverProcess("/shared/work", {}))
