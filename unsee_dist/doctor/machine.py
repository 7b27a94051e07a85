"""One machine, without the others: versions, accelerator, cores, shared memory, open files, disk."""

from __future__ import annotations

import os
import re
import resource
import shutil
import statistics
import sys
import time
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement

from unsee_dist.distributed.engine import cpu_computes_bf16
from unsee_dist.doctor.findings import Finding, Level

PASS, WARN, FAIL = Level.PASS, Level.WARN, Level.FAIL
SHOWN = ("unsee_dist", "torch", "deepspeed", "transformers")
GIB = 2**30
SHM_GIB = 1.0  # batches of the workers, and gloo and NCCL between ranks of one host, are in it
FILES = 1024  # `unsee prepare` of 100,000 files opens 17, a run of 8 workers some hundred
FSYNC_S, FSYNC_TRIES, FSYNC_BYTES = 0.5, 5, 1 << 20
FREE_GIB = 10.0
DRIVER = Path("/proc/driver/nvidia/version")


def versions() -> Iterator[Finding]:
    """Of Python and of what is required, against the bounds that this package states."""
    names = [f"python {sys.version.split()[0]}"]
    names += [f"{name} {_version(name) or 'missing'}" for name in SHOWN]
    wrong = []
    for text in metadata.requires("unsee_dist") or ():
        needed = Requirement(text)
        there = _version(needed.name)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        if there is None:
            wrong.append(f"{needed.name} is missing")
        elif not needed.specifier.contains(there, prereleases=True):
            wrong.append(f"{needed.name} {there} is not {needed.specifier}")
    if not (3, 11) <= sys.version_info < (3, 14):
        wrong.append(f"python {sys.version.split()[0]} is not 3.11 to 3.13")
    remedy = 'Install it again: pip install "unsee_dist" (constraints.txt has the versions that are tested)'
    if wrong:
        yield Finding(FAIL, "versions", "; ".join(wrong), remedy)
    yield Finding(PASS, "versions", ", ".join(names))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def accelerator() -> Iterator[Finding]:
    """GPUs, their driver, and whether one computes; else the CPU's kind of numbers."""
    driver = _driver()
    if not torch.cuda.is_available():
        if driver:
            built = "for CUDA " + torch.version.cuda if torch.version.cuda else "without CUDA"
            what = f"the NVIDIA driver {driver} is here, but torch {torch.__version__}, built {built}, sees no GPU"
            remedy = (
                "Look at nvidia-smi and CUDA_VISIBLE_DEVICES, and install torch for this driver (pytorch.org)"
            )
            yield Finding(FAIL, "accelerator", what, remedy)
        elif cpu_computes_bf16():
            yield Finding(PASS, "accelerator", "no GPU; this CPU computes bf16")
        else:
            yield Finding(
                WARN, "accelerator", "no GPU; this CPU has no units for bf16", "Write parallel.precision=fp32"
            )
        return
    for index in range(torch.cuda.device_count()):
        yield _gpu(index, driver)


def _gpu(index: int, driver: str) -> Finding:
    kind = torch.cuda.get_device_properties(index)
    name = f"GPU {index} {kind.name}"
    try:
        free, total = torch.cuda.mem_get_info(index)
        left = torch.ones(256, 256, device=f"cuda:{index}")
        computed = float((left @ left).sum()) == 256.0**3
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        remedy = "Look at nvidia-smi: is another process on it, and does this torch support its architecture?"
        return Finding(FAIL, "accelerator", f"{name} does not compute: {why}", remedy)
    what = (
        f"{name}, {free / GIB:.0f} of {total / GIB:.0f} GiB free, CUDA {torch.version.cuda}, driver {driver}"
    )
    if not computed:
        return Finding(FAIL, "accelerator", f"{name} computes wrong numbers", "Leave this GPU out")
    if free < total / 2:
        return Finding(WARN, "accelerator", what, "Another process uses it: see nvidia-smi")
    if not torch.cuda.is_bf16_supported():
        return Finding(
            WARN, "accelerator", f"{what}, no bf16", "Write parallel.precision=fp16, or fp32 for exactness"
        )
    return Finding(PASS, "accelerator", what)


def _driver() -> str:
    """The version of the NVIDIA driver; "" without one."""
    try:
        version = re.search(r"Kernel Module.*?(\d+\.\d+(?:\.\d+)?)", DRIVER.read_text("utf-8", "replace"))
    except OSError:
        return ""
    return version[1] if version else "of an unknown version"


def cores(local_ranks: int) -> Iterator[Finding]:
    """Whether the threads of all ranks of this host have a core each."""
    usable, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    what = f"{usable} usable of {os.cpu_count()}, {local_ranks} rank{'s' * (local_ranks != 1)} here of {threads} thread{'s' * (threads != 1)}"
    if local_ranks * threads > usable:
        most = max(1, usable // local_ranks)
        yield Finding(WARN, "cores", what, f"Too many threads are slow: export OMP_NUM_THREADS={most}")
    else:
        yield Finding(PASS, "cores", what)


def shared_memory(place: Path = Path("/dev/shm")) -> Iterator[Finding]:
    try:
        free = shutil.disk_usage(place).free / GIB
    except OSError as error:
        yield Finding(
            FAIL, "shared memory", f"{place}: {error.strerror}", "Mount it: mount -t tmpfs tmpfs /dev/shm"
        )
        return
    what, remedy = f"{free:.1f} GiB free in {place}", "Give the container more: --shm-size 8g, or --ipc host"
    level = PASS if free >= SHM_GIB else WARN if free >= SHM_GIB / 16 else FAIL
    yield Finding(level, "shared memory", what, "" if level is PASS else remedy)


def open_files() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "any number" if soft == resource.RLIM_INFINITY else f"{soft:,}"
    enough = soft == resource.RLIM_INFINITY or soft >= FILES
    remedy = "" if enough else f"ulimit -n {min(4096, hard) if hard != resource.RLIM_INFINITY else 4096}"
    level = PASS if enough else WARN if soft >= FILES // 4 else FAIL
    yield Finding(level, "open files", f"{shown} allowed", remedy)


def disk(folder: Path) -> Iterator[Finding]:
    """Of the folder that runs are written into: room, hard links (one marks who owns a run), and fsync."""
    probe = folder / f".doctor-{uuid.uuid4().hex}"
    linked = probe.with_suffix(".link")
    seconds, links = [], True
    try:
        free = shutil.disk_usage(folder).free / GIB
        data = os.urandom(FSYNC_BYTES)
        for _ in range(FSYNC_TRIES):
            with probe.open("wb") as file:
                file.write(data)
                file.flush()
                began = time.perf_counter()
                os.fsync(file.fileno())
                seconds.append(time.perf_counter() - began)
        try:
            os.link(probe, linked)
        except OSError:
            links = False
    except OSError as error:
        remedy = "Give a folder that you may write to: unsee doctor DIR"
        yield Finding(FAIL, "disk", f"{folder} cannot be written: {error.strerror}", remedy)
        return
    finally:
        for each in (probe, linked):
            each.unlink(missing_ok=True)
    took = statistics.median(seconds)
    what = f"{folder.absolute()}: {free:,.0f} GiB free, fsync of 1 MiB in {1000 * took:.0f} ms"
    if not links:
        remedy = "Put runs on a file system that has them (ext4, XFS, NFS, Lustre, BeeGFS)"
        yield Finding(FAIL, "disk", f"{folder.absolute()}: no hard links", remedy)
    elif free < FREE_GIB:
        yield Finding(
            WARN, "disk", what, "Make room: unsee train CONFIG --dry-run says what its checkpoints need"
        )
    elif took > FSYNC_S:
        yield Finding(WARN, "disk", what, "Slow: write checkpoint.every larger, or run.dir on a faster disk")
    else:
        yield Finding(PASS, "disk", what)
