"""The harness itself: results in rank order, the failing rank's own traceback, and never a process left."""

import multiprocessing
import os
import signal
import time

import pytest
import torch
import torch.distributed as dist
from processes import RankFailed, run


def _sum_of_ranks(rank: int, size: int, factor: int) -> tuple[int, float]:
    assert os.environ["RANK"] == str(rank)
    assert os.environ["WORLD_SIZE"] == str(size)
    assert torch.get_num_threads() == 1
    total = torch.tensor(float(rank * factor))
    dist.all_reduce(total)
    return rank, total.item()


def _rank_1_raises_while_the_others_wait(rank: int, _size: int) -> None:
    assert rank != 1, "the cause"
    dist.all_reduce(torch.zeros(1))


def _rank_1_is_killed(rank: int, _size: int) -> None:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _rank_0_never_ends(rank: int, _size: int) -> None:
    if rank == 0:
        time.sleep(60)


def _returns_what_cannot_be_pickled(_rank: int, _size: int) -> object:
    return lambda: None


def test_results_come_in_rank_order() -> None:
    assert run(_sum_of_ranks, 3, 2) == [(0, 6.0), (1, 6.0), (2, 6.0)]
    assert run(_sum_of_ranks, 1, 2) == [(0, 0.0)]


@pytest.mark.parametrize(
    ("worker", "timeout_s", "message"),
    [
        (_rank_1_raises_while_the_others_wait, 30, r"(?s)rank 1 failed.*AssertionError: the cause"),
        (_rank_1_is_killed, 30, r"exit codes by rank: \{1: -9\}"),
        pytest.param(
            *(_rank_0_never_ends, 20, r"(?s)\[0.*did not end .* limit 20 s.*in _rank_0_never_ends"),
            marks=pytest.mark.slow,
        ),
        (_returns_what_cannot_be_pickled, 30, r"(?s)rank \d failed.*pickle"),
    ],
)
def test_a_failure_names_its_rank_and_leaves_nothing_running(worker, timeout_s, message) -> None:
    with pytest.raises(RankFailed, match=message):
        run(worker, 3, timeout_s=timeout_s)
    assert not multiprocessing.active_children()
