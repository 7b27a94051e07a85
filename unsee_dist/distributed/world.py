"""The processes of a run as one of them sees them, and what they tell each other: a value, rows, that all are here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from unsee_dist.distributed.collectives import all_gather
from unsee_dist.log import LOG

Shared = TypeVar("Shared")


@dataclass(frozen=True)
class World:
    """This process among the processes of a run. `device` is where its tensors live."""

    rank: int
    size: int
    local_rank: int
    device: torch.device
    by_relay: bool = False  # reaches rank 0's store by way of the first rank of its host

    @classmethod
    def alone(cls) -> World:
        return cls(0, 1, 0, torch.device("cpu"))


def wait_for_all(world: World) -> None:
    if world.size > 1:
        dist.barrier()


def from_rank_0(world: World, value: Shared) -> Shared:
    """Rank 0's value on every rank. Collective."""
    shared = [value]
    if world.size > 1:
        dist.broadcast_object_list(shared, src=0)
    return shared[0]


def gather_rows(world: World, rows: torch.Tensor) -> torch.Tensor:
    """(n, D) of every rank, equal n, in rank order: (R n, D). Outside autograd."""
    if world.size == 1:
        return rows
    rows = rows.to(world.device)
    out = torch.empty(world.size * len(rows), *rows.shape[1:], dtype=rows.dtype, device=rows.device)
    all_gather(out, rows.contiguous())
    return out


def print_on_rank_0(world: World, sentence: str) -> None:
    if world.rank == 0:
        LOG.info(sentence)
