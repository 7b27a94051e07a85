"""Steps on a pretended GPU: those of a CPU on two real ranks, and the last rank's of 2, 8 and 64."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import oracle
import pytest
import torch
import torch.distributed as dist
from oracle import Case, running
from pretending import on_pretended_gpu
from processes import run

CASE = Case("corinfomax", dropout=0.1, both=True)


def losses(rank: int, size: int, stage: int, pretended: Any = None) -> list[float]:
    ours = running(CASE, rank, size, stage)
    values = []
    for step in (1, 2, 3):
        with pretended.hot_path() if pretended else nullcontext():
            result = ours.train_step(step, micro_batch=5)
        assert result.applied
        values += [result.loss, result.grad_norm]
    return values


def pretended_equals_cpu(rank: int, size: int) -> list[tuple[list[float], list[float]]]:
    pairs = []
    for stage in range(4):
        on_cpu = losses(rank, size, stage)
        with on_pretended_gpu(rank, size, carried=True) as pretended:
            pairs.append((on_cpu, losses(rank, size, stage, pretended)))
    return pairs


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_a_step_on_the_pretended_gpu_is_the_step_on_a_cpu(size: int) -> None:
    """Real ranks, whose collectives the strict group carries: masks, pooling and all else take the GPU's way."""
    for of_rank in run(pretended_equals_cpu, size, timeout_s=300):
        for on_cpu, on_gpu in of_rank:
            assert on_gpu == pytest.approx(on_cpu, rel=1e-6)


def last_rank(_rank: int, _size: int, size: int) -> None:
    """Its parts of the weights are padded, or empty."""
    for stage in range(4):
        with on_pretended_gpu(size - 1, size) as pretended:
            ours = running(CASE, size - 1, size, stage)
            batch = oracle.batch(1, 0, 6).to(oracle.DEVICE)
            with pretended.hot_path():
                oracle.train_step(ours.engine, ours.target, batch, oracle.LR, oracle.DECAY)


@pytest.mark.parametrize("size", [2, 8, 64])
def test_the_last_rank_of_any_number_can_step(size: int) -> None:
    run(last_rank, 1, size, timeout_s=300)


def step_with_a_barrier(_rank: int, _size: int) -> str:
    from unsee_dist.bench.pretended.ledger import Refused

    with on_pretended_gpu(0, 2) as pretended:
        ours = running(CASE, 0, 2, 1)
        reduce = ours.engine.reduce

        def with_objects(values: torch.Tensor) -> Any:
            gathered: list[Any] = [None, None]
            dist.all_gather_object(gathered, "here")
            return reduce(values)

        ours.engine.reduce = with_objects  # type: ignore[method-assign]
        try:
            with pretended.hot_path():
                ours.train_step(1)
        except Refused as error:
            return str(error)
    return ""


def test_a_step_that_gathers_objects_is_refused() -> None:
    assert "all_gather_object in the hot path" in run(step_with_a_barrier, 1)[0]
