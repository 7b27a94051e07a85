"""What runs on a GPU: `make test-gpu`. Everything skips where torch sees none.

UNSEE_GPU_TESTS_ON=cpu runs the same code on a CPU, to rehearse it; what only a GPU has is skipped then.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "procs")
)  # the laws, which these tests run again

import pytest
import torch
from integration import tiny as making


@pytest.fixture(scope="session")
def device() -> str:
    """Where the tests of this folder run: cuda."""
    wanted = os.environ.get("UNSEE_GPU_TESTS_ON", "cuda")
    if wanted == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU: torch sees none here")
    return wanted


@pytest.fixture(scope="session")
def cuda(device: str) -> torch.device:
    """For what a rehearsal on a CPU cannot run."""
    if device != "cuda":
        pytest.skip("needs a GPU: a CPU has no such memory, streams or kernels")
    return torch.device("cuda")


@pytest.fixture(scope="session")
def two_cards(device: str) -> int:
    count = torch.cuda.device_count() if device == "cuda" else 0
    if count < 2:
        pytest.skip(f"needs two GPUs for nccl: torch sees {count}")
    return count


@pytest.fixture(scope="session")
def variables(device: str) -> dict[str, str]:
    """Of a process that trains on the first GPU."""
    return {"CUDA_VISIBLE_DEVICES": "0", "DS_ACCELERATOR": "cuda"} if device == "cuda" else {}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> making.Tiny:
    return making.make(tmp_path_factory.mktemp("tiny"))
