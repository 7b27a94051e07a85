"""All ranks together: the sum is real, a wrong one and a wrong clock are seen, and so is a folder that is not shared."""

from __future__ import annotations

import time
from pathlib import Path

import torch
import torch.distributed as dist
from processes import run

from unsee_dist.distributed.world import World
from unsee_dist.doctor import ranks
from unsee_dist.doctor.findings import Level


def _looks(rank: int, size: int, folder: str, wrong: bool) -> dict[str, str]:
    ranks.MIB = 1  # the law is the same, the test quicker
    ranks.SLOW = {"gloo": 1e9 if wrong else 0.0}
    world, ahead_s = World(rank, size, rank, torch.device("cpu")), 10.0 * rank if wrong else 0.0
    place = Path(folder) / (str(rank) if wrong else "shared")
    place.mkdir(parents=True, exist_ok=True)
    found = [*ranks._all_reduce(world), *ranks._clocks(world, lambda: time.time() + ahead_s)]
    found += ranks._shared_folder(world, place)
    dist.barrier()  # rank 0 removes its file after the others have looked
    assert list(place.iterdir()) == []
    real = dist.all_reduce

    def loses_rank_1(tensor: torch.Tensor, op: dist.ReduceOp = dist.ReduceOp.SUM) -> None:
        if op == dist.ReduceOp.SUM and rank == 1:
            tensor.zero_()
        real(tensor, op=op)

    dist.all_reduce = loses_rank_1
    (lost,) = ranks._all_reduce(world)
    assert lost.level is Level.FAIL
    assert "the sum is wrong" in lost.what
    return {each.check: each.level.name for each in found}


def test_ranks_that_work_pass(tmp_path: Path) -> None:
    for found in run(_looks, 2, str(tmp_path), False):
        assert found == {"all-reduce": "PASS", "clock": "PASS"}


def test_a_slow_network_a_clock_and_a_folder_of_its_own_are_seen(tmp_path: Path) -> None:
    first, second = run(_looks, 2, str(tmp_path), True)
    assert first == {"all-reduce": "WARN", "clock": "PASS"}
    assert second == {"all-reduce": "WARN", "clock": "WARN", "shared folder": "FAIL"}
