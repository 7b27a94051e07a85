"""Sums in order: torch's deterministic kernels inside a step on a GPU, and as it was before outside of it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import pytest
import torch
import torch.utils.deterministic

from unsee_dist.distributed.deterministic import prepare_cublas, sums_in_order

CHECKS: Any = torch.utils.deterministic


def state() -> tuple[bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        CHECKS.fill_uninitialized_memory,
    )


def test_a_block_on_a_gpu_uses_deterministic_kernels_and_leaves_no_trace() -> None:
    before = state()
    with sums_in_order(torch.device("cuda")):
        assert state() == (True, True, False)
    assert state() == before == (False, False, True)
    with suppress(KeyError), sums_in_order(torch.device("cuda")):
        raise KeyError
    assert state() == before


def test_who_asked_for_errors_gets_errors() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with sums_in_order(torch.device("cuda")):
            assert state() == (True, False, False)
        assert state() == (True, False, True)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_cpu_adds_in_order_anyway() -> None:
    with sums_in_order(torch.device("cpu")):
        assert state() == (False, False, True)


def test_the_workspace_of_cublas_is_set_where_the_user_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    prepare_cublas()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    prepare_cublas()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
