"""Two ranks that see one GPU, which is pretended: both end at the start, and one sentence says why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from integration import ranks
from integration.tiny import REPOSITORY, Tiny

from unsee_dist.errors import ExitCode

PRETENDED = """
import types
import torch
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
torch.cuda.set_device = lambda index: None
torch.cuda.get_device_properties = lambda device: types.SimpleNamespace(uuid="GPU-7")
"""


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_that_see_the_same_gpu_end_with_one_sentence(count: int, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(PRETENDED, encoding="utf-8")
    path = f"{tmp_path}{os.pathsep}{REPOSITORY}"
    started = ranks.start(count, tiny.config, f"run.dir={tmp_path / 'run'}", PYTHONPATH=path)
    assert started.wait(120) == [ExitCode.MISTAKE] * count, started.text()
    printed = started.text()
    host = os.uname().nodename
    assert printed.count(f"rank 0 on {host} and rank 1 on {host} have the same GPU (GPU-7)") == 1, printed
    assert "--gpus-per-task=1" in printed
    assert "Traceback" not in printed
