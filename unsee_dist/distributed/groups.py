"""The process groups of this process: how many collectives it has issued on them, and how long torch waits in one."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist

LEAST_S = 600  # torch's own limit under NCCL


def slow_timeout_s(timeout_s: float) -> float:
    """Seconds without progress that are allowed at a start, where an encoder may be downloading."""
    return max(LEAST_S, 2 * timeout_s)


def torch_timeout_s(timeout_s: float) -> float:
    """Seconds after which torch ends a collective: later than the watchdog, which names the rank and exits with code 3."""
    return slow_timeout_s(timeout_s) + 60


def set_torch_timeout(seconds: float) -> None:
    """For all groups there are and their store. Others are made later: call it again."""
    timeout = timedelta(seconds=seconds)
    dist.distributed_c10d._get_default_store().set_timeout(timeout)
    for group in _groups():
        dist.distributed_c10d._set_pg_timeout(timeout, group)


def collectives_issued(size: int, without: Collection[object] = ()) -> int:
    """How many collectives this rank has issued on all groups of `size` ranks, but those in `without`.

    All ranks issue the same ones in the same order, so of two ranks the one with fewer is behind. torch counts before
    anything can wait: gloo (torch 2.11 and 2.13, measured) each one; NCCL (`seqCollective_`) each one, and those that are
    coalesced as one. A group of another backend has no count.
    """
    total = 0
    for group in _groups():
        if group.size() == size and not any(group is other for other in without):
            total += issued(group)
    return total


def issued(group: dist.ProcessGroup) -> int:
    with suppress(RuntimeError):  # a backend without a count
        return int(group._get_sequence_number_for_group())  # type: ignore[attr-defined]  # not in torch's stubs
    return 0


def _groups() -> list[dist.ProcessGroup]:
    known = list(dist.distributed_c10d._world.pg_map)  # another thread may add one
    return [group for group in known if isinstance(group, dist.ProcessGroup)]
