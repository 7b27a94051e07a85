"""One command at a time trains in a run's folder: rank 0 owns it, for all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from unsee_dist.distributed.shared_errors import share_errors
from unsee_dist.distributed.world import World
from unsee_dist.files.owner import OWNER, owned

REMEDY = "Wait until it has ended, stop it, or write another run.dir."


@contextmanager
def owned_run(world: World, folder: Path) -> Iterator[None]:
    """The ranks of `world` alone write into `folder` while the block runs. Collective at its start.

    SharedUserError: another command trains there; nothing was changed.
    """
    with ExitStack() as held:
        with share_errors(world):
            if world.rank == 0:
                held.enter_context(owned(folder / OWNER, f"run.dir = {folder}", REMEDY))
        yield
