"""The mark of a stopped run or sweep: a file that the batch script names by a variable, and by which it requeues its job."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from unsee_dist.files.atomic import write_file

OF_RUN, OF_SWEEP = "UNSEE_STOP_MARK", "UNSEE_SWEEP_MARK"


def write_mark(variable: str, progress: Callable[[], str]) -> None:
    """Write a line that says how far it is, where the variable is set. Two equal lines are no progress. What cannot be
    written is said: it must not take the place of why the run ends."""
    path = os.environ.get(variable)
    if path:
        line = progress()
        try:
            write_file(Path(path), f"{line}\n")
        except OSError as error:
            print(
                f"{variable} = {path} cannot be written ({error.strerror}): the batch script does not start again.",
                file=sys.stderr,
                flush=True,
            )
