"""An error of one rank ends every rank, as its kind says: a mistake, a passing fault, a bug."""

from __future__ import annotations

import errno

import pytest
import torch
from procs.processes import run

KINDS = {
    "mistake": "SharedUserError: write another",
    "fault": "SharedTransientError: [Errno 5] the disk",
    "both": "SharedUserError: write another",
}


def _raised(rank: int, size: int, kind: str) -> str:
    from unsee_dist.distributed.shared_errors import share_errors
    from unsee_dist.distributed.world import World
    from unsee_dist.errors import UserError

    errors = {
        "mistake": (None, UserError("write another")),
        "fault": (None, OSError(errno.EIO, "the disk")),
        "both": (OSError(errno.EIO, "the disk"), UserError("write another")),
        "bug": (UserError("write another"), KeyError("a bug")),
        "value": (None, ValueError("a bug")),
        "missing": (None, FileNotFoundError(errno.ENOENT, "a bug")),
        "none": (None, None),
    }
    mine = errors[kind][rank]
    try:
        with share_errors(World(rank, size, rank, torch.device("cpu"))):
            if mine is not None:
                raise mine
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_a_mistake_or_a_passing_fault_of_one_rank_is_every_ranks(kind: str) -> None:
    assert run(_raised, 2, kind) == [KINDS[kind]] * 2


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("bug", "KeyError: 'a bug'"),
        ("value", "ValueError: a bug"),
        ("missing", "FileNotFoundError: [Errno 2] a bug"),
    ],
)
def test_a_bug_of_one_rank_stays_its_own_and_ends_the_others(kind: str, own: str) -> None:
    assert run(_raised, 2, kind) == [
        "PeerFailed: rank 1 has failed; its traceback is above or in its own log",
        own,
    ]


def test_without_an_error_nothing_is_raised() -> None:
    """The control."""
    assert run(_raised, 2, "none") == ["nothing"] * 2
