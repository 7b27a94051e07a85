"""What the watchdog relies on under NCCL: torch counts collectives when they are issued, and does not end the process.

One card is enough: a world of one has a communicator, and a kernel that runs for long stands for a peer that never comes.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from integration.tiny import environment

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

SCRIPT = """
import os, time
import torch
import torch.distributed as dist
from unsee_dist.distributed import groups
from unsee_dist.distributed.process_group import join_world

world = join_world()
assert dist.get_backend() == "nccl", dist.get_backend()
assert dist.group.WORLD.bound_device_id == world.device


ones = torch.ones(4, device=world.device)
before = groups.collectives_issued(1)
dist.all_reduce(ones)
dist.barrier()
assert groups.collectives_issued(1) == before + 2
other = dist.new_group(backend="gloo")
dist.all_reduce(torch.ones(4), group=other)
assert groups.collectives_issued(1) == before + 3
assert groups.collectives_issued(1, [other]) == before + 2

groups.set_torch_timeout(1.0)
nccl = dist.group.WORLD._get_backend(world.device)
assert nccl.options._timeout.total_seconds() == 1.0
torch.cuda._sleep(20_000_000_000)  # about ten seconds: the collective behind it is late by torch's limit
issued = groups.collectives_issued(1)
begun = time.monotonic()
dist.all_reduce(ones)
assert groups.collectives_issued(1) == issued + 1
assert time.monotonic() - begun < 1, "issuing waited for the device: nothing was late"
ones.tolist()
took = time.monotonic() - begun
assert took > 3, f"nothing was late: {took}"
print("survived", flush=True)
os._exit(0)
"""


def on_the_card(**variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name == "CUDA_VISIBLE_DEVICES"}
    env = environment(**{"CUDA_VISIBLE_DEVICES": "0", "DS_ACCELERATOR": "cuda"} | kept | variables)
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, timeout=240
    )


def test_a_late_collective_is_counted_and_does_not_end_the_process(cuda: torch.device) -> None:
    assert cuda.type == "cuda"
    done = on_the_card()
    assert done.returncode == 0, done.stderr
    assert "survived" in done.stdout


def test_torch_alone_ends_the_process(cuda: torch.device) -> None:
    """The negative control: with torch's own handling the process is aborted, and the wait is not over."""
    assert cuda.type == "cuda"
    done = on_the_card(TORCH_NCCL_ASYNC_ERROR_HANDLING="3", TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC="10")
    assert done.returncode != 0
    assert "survived" not in done.stdout
