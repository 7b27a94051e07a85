"""Times on a device: of steps, and of the fastest matrix product, with which a step is compared."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple, TypeVar

import torch

WARM_UP, PRODUCTS = 3, 10
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

T = TypeVar("T")


class Effort(NamedTuple):
    """Steps of a case. Free ones end after `seconds`, but not before `least`; batches: different ones, made before."""

    warm_up: int = 3
    least: int = 3
    most: int = 10
    seconds: float = 2.5
    stopped: int = 3
    batches: int = 3
    until_applied: int = 30  # more warm-up at most: fp16 finds its loss scale by skipping steps


def matmul_ceiling(device: torch.device, dtype: torch.dtype, size: int | None = None) -> float:
    """Floating-point operations a second: the median of ten square products of random numbers, after warm-up.

    size: absent = 8,192 on a GPU, 1,024 on a CPU. fp32 without TF32, as in training.
    """
    size = size or (8192 if device.type == "cuda" else 1024)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    for _ in range(WARM_UP):
        torch.mm(left, right, out=out)
    marks = [mark(device)]
    for _ in range(PRODUCTS):
        torch.mm(left, right, out=out)
        marks.append(mark(device))
    return 2 * size**3 / statistics.median(distances_s(marks))


Mark = float | torch.cuda.Event  # a moment: of the host's clock, or in the GPU's order of work


def mark(device: torch.device) -> Mark:
    """This moment, without waiting for a GPU."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def distances_s(marks: list[Mark]) -> list[float]:
    """Seconds from each mark to the next. Waits for the last."""
    seconds = []
    for before, after in pairwise(marks):
        if isinstance(before, float):
            assert isinstance(after, float)
            seconds.append(after - before)
        else:
            assert not isinstance(after, float)
            after.synchronize()
            seconds.append(before.elapsed_time(after) / 1000)
    return seconds


def free_steps(device: torch.device, step: Callable[[int], T], effort: Effort) -> tuple[list[float], list[T]]:
    """Seconds of each step by the device's clock, and what step(number) returned. Nothing is waited for in between."""
    marks, results = [mark(device)], list[T]()
    began = time.perf_counter()
    while len(results) < effort.least or (
        len(results) < effort.most and time.perf_counter() - began < effort.seconds
    ):
        results.append(step(len(results)))
        marks.append(mark(device))
    return distances_s(marks), results


def peak_mib(device: torch.device) -> float:
    """Most memory held at once since the last reset: on a GPU by tensors, on a CPU by the process since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_ceilings(device: torch.device, size: int | None = None) -> dict[str, float]:
    """Operations a second of matrix products by precision; fp16 on a GPU only, as in training."""
    return {
        name: matmul_ceiling(device, dtype, size)
        for name, dtype in DTYPES.items()
        if name != "fp16" or device.type == "cuda"
    }
