"""Why a trial failed: a file a rank in the trial's folder, failure-rank-R.json, with the traceback.

A bug or a mistake comes again at each attempt: such a trial is not tried again in this start of the sweep, and the
sweep's exit code says which it was. A passing fault and a lost rank are tried again, `sweep.retries` times.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unsee_dist.errors import ExitCode, exit_code_of, foreseen, of_a_bug
from unsee_dist.files.records import RecordFile

PATTERN = "failure-rank-*.json"


@dataclass(frozen=True)
class TrialFailure:
    """What ended a rank. sentence: its last line; traceback: whole, "" for a mistake."""

    rank: int
    code: ExitCode
    sentence: str
    traceback: str

    @property
    def line(self) -> str:
        return f"rank {self.rank}: {self.sentence}"

    @property
    def recurs(self) -> bool:
        """Does it come again at the next attempt?"""
        return self.code in (ExitCode.BUG, ExitCode.MISTAKE)


def _file(rank: int | str) -> RecordFile[TrialFailure]:
    return RecordFile(f"failure-rank-{rank}.json", TrialFailure, version=2, remedy="Delete it.")


def write_failure(trial: Path, rank: int, error: Exception) -> None:
    """Record what ended a rank of the trial in the folder `trial`, before Ray kills the others."""
    code = exit_code_of(error)
    text = "" if code is ExitCode.MISTAKE else "".join(traceback.format_exception(error))
    sentence = (
        str(foreseen(error) or error)
        if code is ExitCode.MISTAKE
        else "".join(traceback.format_exception_only(error))
    )
    trial.mkdir(parents=True, exist_ok=True)
    _file(rank).write(trial, TrialFailure(rank, code, sentence.strip(), text))


def read_failures(trial: Path) -> list[TrialFailure]:
    """The failures of the newest attempt, those that come again first."""
    names = (path.stem.removeprefix("failure-rank-") for path in trial.glob(PATTERN))
    ranks = sorted(int(name) for name in names if name.isdecimal())
    failures = [failure for rank in ranks if (failure := _file(rank).read(trial)) is not None]
    return sorted(failures, key=lambda failure: (not failure.recurs, failure.code, failure.rank))


def forget_failures(trial: Path) -> None:
    for path in trial.glob(PATTERN):
        path.unlink(missing_ok=True)


def begin_attempt(trial: Path) -> str | None:
    """Called before each attempt: why there must be none, or None; then failures of the attempt before are forgotten."""
    failures = read_failures(trial)
    if failures and failures[0].recurs:
        return failures[0].line
    forget_failures(trial)
    return None


def describe_failures(trial: str, folder: Path, failures: Sequence[TrialFailure]) -> str:
    """What a person needs of a failed trial: the traceback of a bug, whose it is, and where to report it."""
    first = failures[0]
    if first.code != ExitCode.BUG:
        return f"trial {trial} failed: {first.line}"
    also = f" (they are also in {folder})"
    return first.traceback + of_a_bug(f"trial {trial}, rank {first.rank}: ", also)
