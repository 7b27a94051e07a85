"""A process that hangs with Python's lock held ends with its code and its stacks; one that goes on does not end."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, time
from unsee_dist.supervision.deadline import Deadline

def hang_in_a_driver():
    ctypes.PyDLL(None).sleep(60)  # PyDLL keeps the lock

deadline = Deadline(3)
deadline.set({seconds})
{then}
"""


def run(seconds: float, then: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(seconds=seconds, then=then)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False
    )


def test_a_hang_that_holds_the_lock_ends_with_the_code_and_the_stacks() -> None:
    done = run(1.5, "hang_in_a_driver()")
    assert done.returncode == 3, done.stderr
    assert "in hang_in_a_driver" in done.stderr


@pytest.mark.parametrize("then", ["deadline.cancel(); time.sleep(1)", "deadline.set(60); time.sleep(1)"])
def test_a_deadline_that_is_cancelled_or_set_again_ends_nothing(then: str) -> None:
    done = run(0.5, then)
    assert (done.returncode, done.stderr) == (0, "")
