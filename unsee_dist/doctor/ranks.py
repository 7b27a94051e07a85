"""All ranks that a launcher has started: they meet, reduce a real tensor, compare clocks, disks and versions.

Whatever hangs ends: the wait for the others after MEET_S, a collective after COLLECTIVE_S. Then each rank tells what it
has found alone.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from socket import gethostname
from threading import Thread

import torch
import torch.distributed as dist

from unsee_dist.distributed.process_group import join_world
from unsee_dist.distributed.rendezvous import READ_S, RendezvousStopped
from unsee_dist.distributed.slurm import adopt_slurm, tasks_of_node
from unsee_dist.distributed.torch_errors import is_lost_connection
from unsee_dist.distributed.world import World, from_rank_0
from unsee_dist.doctor import machine, services
from unsee_dist.doctor.findings import BETWEEN, Finding, Level, as_text
from unsee_dist.errors import ExitCode, TransientError, UserError
from unsee_dist.supervision.deadline import Deadline

PASS, WARN, FAIL = Level.PASS, Level.WARN, Level.FAIL
MEET_S = 60.0
COLLECTIVE_S = 120.0
MIB, TIMES = 64, 5
CLOCK_S = 1.0  # beyond it times of files and of trackers are misleading
OF_NETWORK = (
    "See NCCL_DEBUG=INFO; set NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME to the network between the hosts"
)
OF_GPU = (
    "Look at nvidia-smi: another program may hold its memory, or it is broken and the host must be left out"
)
SLOW = {"nccl": 1.0, "gloo": 0.02}  # GB/s on the wire: an Ethernet of 10 Gbit/s has about 1, of 1 Gbit/s 0.1


def examine(folder: Path) -> tuple[list[Finding], World]:
    """The findings of all ranks on rank 0 (of this rank alone on the others), and the ranks. Every rank calls it."""
    findings = list(machine.accelerator())
    try:
        adopt_slurm(os.environ)
    except UserError as error:
        remedy = "Export MASTER_ADDR in the batch script"
        return _of_host([*findings, Finding(FAIL, "ranks", str(error), remedy)]), World.alone()
    if os.environ.get("LOCAL_RANK", "0") == "0":  # once a host
        findings = [*_of_machine(folder), *findings, *_of_services()]
    world, problem = _meet()
    if world is None:
        return _of_host([*findings, problem]), World.alone()
    return _together(world, _of_host(findings), folder), world


def _of_machine(folder: Path) -> Iterator[Finding]:
    local = int(os.environ.get("LOCAL_WORLD_SIZE", tasks_of_node(os.environ)))
    for look in (machine.versions(), machine.cores(local), machine.shared_memory(), machine.open_files()):
        yield from look
    yield from machine.disk(folder)


def _of_services() -> Iterator[Finding]:
    for look in (services.hub, services.mlflow, services.slurm, services.ray, services.ports):
        yield from look()


def _of_host(findings: list[Finding]) -> list[Finding]:
    return [replace(each, host=_host()) for each in findings]


def _host() -> str:
    """Slurm's name of the node, by which it is found again; else the host's own."""
    return os.environ.get("SLURMD_NODENAME") or gethostname()


def _meet() -> tuple[World | None, Finding]:
    """The ranks, or why they have not met. In a thread: torch waits ten minutes for a name that nobody knows."""
    until, met = time.monotonic() + MEET_S, list[World]()
    unforeseen: list[Exception] = []
    meeting = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    what = f"not all {os.environ.get('WORLD_SIZE')} ranks have met at {meeting} in {MEET_S:g} s"
    remedy = "Open the port between the hosts, or export MASTER_ADDR with an address that all of them reach"
    problem = [Finding(FAIL, "ranks", what, remedy)]

    def join() -> None:
        try:
            met.append(join_world(stopped=lambda: time.monotonic() > until))
        except RendezvousStopped:
            return  # as when it does not end
        except (UserError, TransientError) as error:
            problem[0] = Finding(FAIL, "ranks", str(error), "Mend this first: no run can begin")
        except Exception as error:  # a bug: raised by the thread that waits
            unforeseen.append(error)

    joining = Thread(target=join, daemon=True)
    joining.start()
    joining.join(MEET_S + READ_S)
    if unforeseen:
        raise unforeseen[0]
    if met and met[0].device.type == "cuda":
        # CUDA's current device is each thread's own, and objects go over nccl from that of the thread that gathers them
        torch.cuda.set_device(met[0].device)
    return (met[0] if met else None), problem[0]


def _together(world: World, own: list[Finding], folder: Path) -> list[Finding]:
    """What only all ranks can see, after what each has seen. Where a rank is gone meanwhile, this one says what it has seen alone
    and ends with RANK_LOST."""
    if world.size == 1:
        gpus = torch.cuda.device_count()
        several = (
            f"deepspeed --num_gpus {gpus}" if gpus else "DS_ACCELERATOR=cpu deepspeed --num_accelerators N"
        )
        what = (
            f"1 on {'a GPU' if gpus else 'a CPU'}: nothing to reduce. Several: {several} --module unsee_dist doctor, or "
            "srun unsee doctor; a run alike, with --module unsee_dist.train --config CONFIG"
        )
        return [*own, replace(Finding(PASS, "ranks", what), host=_host())]
    deadline = Deadline(ExitCode.RANK_LOST)
    deadline.set(COLLECTIVE_S)
    try:
        reduced = list(_all_reduce(world))
        own += _of_host([*_clocks(world), *_shared_folder(world, folder)])
        gathered: list[list[Finding]] = [[] for _ in range(world.size)]
        dist.all_gather_object(gathered, own)
    except RuntimeError as error:
        of_gpu = isinstance(error, torch.AcceleratorError | torch.OutOfMemoryError)
        if not of_gpu and not is_lost_connection(error):
            raise
        remedy = OF_GPU if of_gpu else OF_NETWORK
        own += _of_host([Finding(FAIL, "all-reduce", str(error).partition("\n")[0], remedy)])
        print(as_text(own, 1, 80), file=sys.stderr, flush=True)
        os._exit(ExitCode.MISTAKE if of_gpu else ExitCode.RANK_LOST)
    finally:
        deadline.cancel()
    everyone = [finding for rank in gathered for finding in rank]
    hosts = list(dict.fromkeys(each.host for each in everyone))
    common = [*_compared(everyone, hosts), *reduced]
    return [*everyone, *(replace(each, host=hosts[0] if len(hosts) == 1 else BETWEEN) for each in common)]


def _all_reduce(world: World) -> Iterator[Finding]:
    """A sum over all ranks that must be right, and its speed on the wire: 2 (R-1)/R of the bytes, per second."""
    backend = dist.get_backend()
    tensor = torch.empty(MIB * 2**18, device=world.device)
    seconds, right = [], True
    for _ in range(TIMES + 1):  # the first opens connections
        tensor.fill_(world.rank + 1.0)
        _finish(world)
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(tensor)
        _finish(world)
        seconds.append(time.perf_counter() - began)
        right = right and bool((tensor == world.size * (world.size + 1) / 2).all())
    slowest = torch.tensor([statistics.median(seconds[1:]), float(not right)], device=world.device)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    took, wrong = slowest.tolist()
    speed = 2 * (world.size - 1) / world.size * tensor.numel() * 4 / took / 1e9
    what = f"{MIB} MiB over {world.size} ranks ({backend}) in {1000 * took:.0f} ms: {speed:.2f} GB/s a rank"
    if wrong:
        yield Finding(
            FAIL,
            "all-reduce",
            f"{what}, and the sum is wrong",
            "Look for a broken link or GPU: NCCL_DEBUG=INFO",
        )
    elif speed < SLOW.get(backend, 0.0):
        yield Finding(
            WARN, "all-reduce", what, "Slow: set NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME to the fast network"
        )
    else:
        yield Finding(PASS, "all-reduce", what)


def _finish(world: World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)


def _clocks(world: World, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """How far this rank's clock is from rank 0's: asked five times, the quickest answer counts."""
    best_s, skew = float("inf"), 0.0
    for _ in range(TIMES):
        dist.barrier()
        before = now()
        reference = from_rank_0(world, now())
        after = now()
        if after - before < best_s:
            best_s, skew = after - before, reference - (before + after) / 2
    what = f"within {max(0.1, round(abs(skew), 1)):g} s of rank 0's"
    if abs(skew) - best_s > CLOCK_S:
        yield Finding(
            WARN, "clock", f"{abs(skew):.1f} s from rank 0's", "Set the time of the hosts by NTP or chrony"
        )
    else:
        yield Finding(PASS, "clock", what if abs(skew) - best_s > 0.1 else "within 0.1 s of rank 0's")


def _shared_folder(world: World, folder: Path) -> Iterator[Finding]:
    """Whether a file that rank 0 writes is there for this rank: every rank writes its part of a checkpoint."""
    name = from_rank_0(world, f".doctor-{uuid.uuid4().hex}")
    place = folder / name
    if world.rank == 0:
        place.touch()
    dist.barrier()
    until = (
        time.monotonic() + timedelta(seconds=5).total_seconds()
    )  # a network file system may know a moment later
    exists = place.exists()
    while not exists and time.monotonic() < until:
        time.sleep(0.2)
        exists = name in os.listdir(folder)
    dist.barrier()
    if world.rank == 0:
        place.unlink()
    if not exists:
        remedy = "Use a folder that all hosts share as run.dir: unsee doctor DIR looks at DIR"
        yield Finding(FAIL, "shared folder", f"{folder.absolute()} is not the one of rank 0", remedy)


def _compared(everyone: list[Finding], hosts: list[str]) -> Iterator[Finding]:
    """What must be the same on every host."""
    kinds = Counter(
        each.what for each in dict.fromkeys(everyone) if each.check == "versions" and each.level is PASS
    )
    if len(kinds) > 1:
        what = "; ".join(f"{count} with {versions}" for versions, count in kinds.items())
        yield Finding(
            FAIL, "versions", f"hosts differ: {what}", "Use one environment, on a folder that all hosts share"
        )
    if len(hosts) > 1 and len({each.what for each in everyone if each.check == "slurm"}) > 1:
        yield Finding(WARN, "slurm", "hosts are in different jobs", "Start all ranks by one srun")
