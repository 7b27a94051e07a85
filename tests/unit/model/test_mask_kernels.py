"""The Triton kernel of the masks is their definition, forward and backward: on a GPU in tests/gpu, here in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

# Triton reads the variable when it is imported, so in a process of its own.
SCRIPT = """
import numpy as np, torch
from unsee_dist.data.stream.mask_keys import mask_keys
from unsee_dist.model import mask_kernels, masks

keys = torch.from_numpy(mask_keys(1, 2, np.arange(6 * 20))).view(6, 20)
places = torch.cat([torch.arange(9), torch.arange(7), torch.arange(4)]).repeat(6, 1)


def same(x, packed, site):
    x.requires_grad_()
    if x.dim() == 3:
        lanes = masks.hidden_lanes(keys, site, x.shape[2])
    else:
        lanes = masks.attention_lanes(keys, site, x.shape[1], 20)
        if packed:
            lanes = lanes.gather(-1, places[:, None, None, :].expand(-1, x.shape[1], 20, -1))
    wanted = x * masks.multiplier(lanes, 0.1, x.dtype)
    found = mask_kernels.dropped(x, keys, places if packed else None, 0.1, site)
    grad = torch.randn_like(found)
    assert torch.equal(found, wanted)
    assert torch.equal(torch.autograd.grad(found, x, grad)[0], torch.autograd.grad(wanted, x, grad)[0])
    assert 0 < (found == 0).float().mean() < 0.2


for features in (1, 30, 128, 250):
    for site in (0, 1, 16, 37):
        same(torch.randn(6, 20, features) + 3, False, site)
for heads in (1, 3):
    for packed in (False, True):
        same(torch.rand(6, heads, 20, 20) + 1, packed, 5)
"""


@pytest.mark.skipif(
    find_spec("triton") is None, reason="needs triton, which comes with torch's builds for GPUs"
)
def test_the_kernel_is_the_definition() -> None:
    path = os.pathsep.join([str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
