"""What a process group over NCCL is made with, so that a rank that hangs ends with code 3; no GPU is needed to see it."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from unsee_dist.distributed import process_group
from unsee_dist.distributed.placement import NCCL_ENVIRONMENT


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The groups that were made, each with what the environment said about NCCL at that moment."""
    groups: list[dict[str, Any]] = []

    def init(backend: str, **how: Any) -> None:
        seen = {name: os.environ.get(name) for name in NCCL_ENVIRONMENT}
        groups.append({"backend": backend, "environment": seen, **how})

    monkeypatch.setattr(dist, "init_process_group", init)
    for name in NCCL_ENVIRONMENT:
        monkeypatch.setenv(name, "later")  # what is set meanwhile is undone after the test
        monkeypatch.delenv(name)
    return groups


def test_over_nccl_torchs_own_endings_are_off_before_it_starts_and_the_device_is_bound(
    made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")  # the user's own
    device = torch.device("cuda", 3)
    process_group._init(device, HashStore(), 3, 8)
    (group,) = made
    assert (group["backend"], group["device_id"], group["rank"], group["world_size"]) == (
        "nccl",
        device,
        3,
        8,
    )
    assert group["environment"] == NCCL_ENVIRONMENT | {"TORCH_NCCL_DUMP_ON_TIMEOUT": "1"}


def test_over_gloo_no_device_is_bound_and_nothing_is_set(made: list[dict[str, Any]]) -> None:
    process_group._init(torch.device("cpu"), HashStore(), 0, 2)
    (group,) = made
    assert (group["backend"], group["device_id"]) == ("gloo", None)
    assert set(group["environment"].values()) == {None}
