"""All ranks together: the sum is real, a wrong one and a wrong clock are seen, and so is a folder that is not shared."""

from __future__ import annotations

import contextlib
import io
import os
import time
from pathlib import Path
from typing import NoReturn
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from processes import RankFailed, run

from unsee_dist.distributed.world import World
from unsee_dist.doctor import ranks
from unsee_dist.doctor.findings import Level
from unsee_dist.errors import ExitCode


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


def _alone(rank: int, size: int, said: Path) -> None:
    """Rank 1 is gone before the reduction. Leaves what rank 0 ends with, and what it says."""
    ranks.MIB, leave = 1, os._exit
    dist.barrier()
    if rank == 1:
        leave(0)

    def end(code: int) -> NoReturn:
        said.write_text(f"{code} {errors.getvalue()}")
        leave(code)

    errors = io.StringIO()
    with mock.patch.object(os, "_exit", end), contextlib.redirect_stderr(errors):
        ranks._together(World(rank, size, rank, torch.device("cpu")), [], Path())


def test_a_rank_that_is_lost_ends_the_others_with_its_code(tmp_path: Path) -> None:
    with pytest.raises(RankFailed):
        run(_alone, 2, tmp_path / "said")
    code, _, said = (tmp_path / "said").read_text().partition(" ")
    assert int(code) == ExitCode.RANK_LOST
    assert "all-reduce" in said
