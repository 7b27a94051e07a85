"""An error of one rank is raised on all, so that no rank waits for one that is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch.distributed as dist

from unsee_dist.distributed.world import World
from unsee_dist.errors import ExitCode, TransientError, UserError, exit_code_of, foreseen


class SharedUserError(UserError):
    """A mistake of the user, raised on every rank; rank 0 prints it."""


class SharedTransientError(TransientError):
    """A passing fault, raised on every rank; rank 0 prints it."""


class PeerFailed(RuntimeError):
    """A bug on another rank, which prints its own traceback."""


class RankError(NamedTuple):
    """The error of one rank inside `share_errors`."""

    rank: int
    code: ExitCode
    sentence: str


@contextmanager
def share_errors(world: World, group: dist.ProcessGroup | None = None) -> Iterator[None]:
    """An error of one rank inside the block is raised on every rank, so no rank waits for one that is gone. Collective.

    A mistake of the user becomes SharedUserError on all ranks and a passing fault SharedTransientError. A bug keeps its
    type and traceback on the rank that has it; the others raise PeerFailed. group: of all ranks, None = torch's default.
    """
    own: Exception | None = None
    try:
        yield
    except Exception as error:
        own = error
    everyone: list[RankError | None] = [None]
    if own is not None:
        everyone = [RankError(world.rank, exit_code_of(own), str(foreseen(own) or own))]
    if world.size > 1:
        gathered: list[RankError | None] = [None] * world.size
        dist.all_gather_object(gathered, everyone[0], group=group)
        everyone = gathered
    failures = [failure for failure in everyone if failure is not None]
    if not failures:
        return
    if own is not None and exit_code_of(own) is ExitCode.BUG:
        raise own
    # a bug before a mistake before a passing fault
    worst = min(failures, key=lambda failure: (failure.code, failure.rank))
    if worst.code is ExitCode.BUG:
        raise PeerFailed(f"rank {worst.rank} has failed; its traceback is above or in its own log")
    kind = SharedUserError if worst.code is ExitCode.MISTAKE else SharedTransientError
    raise kind(worst.sentence) from own
