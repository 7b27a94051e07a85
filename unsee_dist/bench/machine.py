"""What the numbers of the bench depend on: device, driver, versions, date."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata

import torch

from unsee_dist.bench.table import BenchRow


def machine(device: torch.device) -> BenchRow:
    """What the numbers depend on."""
    gpu = device.type == "cuda"
    packages = ("deepspeed", "transformers", "sentence-transformers")
    return {
        "device": torch.cuda.get_device_name() if gpu else "CPU",
        "memory_gib": torch.cuda.get_device_properties(0).total_memory / 2**30 if gpu else None,
        "driver": _driver() if gpu else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        "cores": len(os.sched_getaffinity(0)),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **{name: _version(name) for name in packages},
    }


def _driver() -> str | None:
    """Its version; None where nvidia-smi is missing or silent."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
