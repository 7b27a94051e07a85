"""What a step asks of a device: kernels launched, results read back, and the kernels that take longest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from unsee_dist.bench.table import BenchRow

# The host waits for the device in these; a blocking copy is a copy and one of them.
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
READS = ("Memcpy DtoH", "aten::_local_scalar_dense")  # as a GPU names them, as a CPU does
NO_KERNELS = ("Memcpy", "Memset")


class Kernel(NamedTuple):
    """All launches of one kernel in a step. share: of the time of all kernels."""

    name: str
    launches: int
    ms: float
    share: float


class Profile(NamedTuple):
    """Of one step. launches: kernels. host_reads: copies from the device to the host. waits: of the host for the
    device, blocked_ms: in them. kernel_ms: sum over the kernels; two may run at once. longest: kernels by time."""

    launches: int
    host_reads: int
    waits: int
    blocked_ms: float
    kernel_ms: float
    longest: tuple[Kernel, ...]


def profiled(device: torch.device, step: Callable[[], object], longest: int = 12) -> Profile:
    """Profile one call. On a CPU, which launches no kernels, torch's operations take their place, nested ones too."""
    on_gpu = device.type == "cuda"
    # of the GPU alone where there is one: recording each of torch's operations would slow the host down
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as recorded:
        step()
    assert recorded.profiler is not None
    # not .events(): it builds a tree of python objects, which takes a minute for the kernels of a large batch
    results: Any = recorded.profiler.kineto_results
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    kernels: dict[str, list[int]] = defaultdict(list)
    reads, waits = 0, []
    for event in results.events():
        name = event.name()
        if event.is_user_annotation():
            continue
        if name.startswith(WAITS):
            waits.append((event.start_ns(), event.duration_ns()))
        elif event.device_type() == kind:
            reads += name.startswith(READS)
            if not name.startswith(NO_KERNELS):
                kernels[name].append(event.duration_ns())
    waited = [ns for _, ns in sorted(waits)[:-1]]  # the last one is the profiler's own
    total_ns = sum(map(sum, kernels.values()))
    ranked = sorted(kernels.items(), key=lambda named: -sum(named[1]))[:longest]
    return Profile(
        launches=sum(map(len, kernels.values())),
        host_reads=reads,
        waits=len(waited),
        blocked_ms=sum(waited) / 1e6,
        kernel_ms=total_ns / 1e6,
        longest=tuple(Kernel(name, len(ns), sum(ns) / 1e6, sum(ns) / total_ns) for name, ns in ranked),
    )


def as_row(profile: Profile) -> BenchRow:
    """Counts and times of a profile, by the names of a row."""
    return profile._asdict() | {"longest": [kernel._asdict() for kernel in profile.longest]}
