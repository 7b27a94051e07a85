"""Which device each rank computes on and over which backend the ranks talk, agreed on before they talk.

A rank takes the GPU of its LOCAL_RANK, or the one GPU that it sees (`srun --gpus-per-task=1` shows each task its own, as
number 0). All ranks then tell their places through the store, since what one rank sees cannot tell whether two ranks
have the same GPU, or whether one has none: NCCL would fail late and without a name, or wait.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import defaultdict
from collections.abc import MutableMapping, Sequence
from typing import NamedTuple

import torch
from torch._C._distributed_c10d import Store

from unsee_dist.errors import UserError

SHARE_GPU = "UNSEE_SHARE_GPU"  # "1": ranks share GPUs, over gloo, which is slow: for tests on one card
READ_S = (
    20.0  # rank 0, which may serve the store, waits so long for the others to read that they cannot start
)

# Set before NCCL starts, and only where the user has not. torch's own threads end the process (SIGABRT, exit code 134 or
# -6) when a collective fails or takes too long, often before this project's watchdog has named the rank. Read in
# ProcessGroupNCCL.cpp of torch 2.9 to 2.13:
NCCL_ENVIRONMENT = {
    # 0: errors and timeouts are logged, the communicator is not aborted and the process goes on, so that a rank stays
    # where it waits for the device until the watchdog (supervision/) ends it with code 3; the next collective of a failed
    # communicator raises. 1 and 3 (the default) end the process, and 2 aborts the communicator only: the wait returns
    # with what the buffer held, and training would go on with it. (TORCH_DISTRIBUTED_DEBUG=DETAIL turns 0 into 3.)
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
    # else a thread ends the process 8 minutes after any failure that made torch dump its traces, or when the thread that
    # looks for failures hangs in the driver, whatever guard.timeout_s is
    "TORCH_NCCL_ENABLE_MONITORING": "0",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "0",
    # else an error of the device ends the process in that thread, before the main thread raises it with its traceback
    "TORCH_NCCL_RETHROW_CUDA_ERRORS": "0",
}


# Read by torch at the first group of gloo; checkpoints use one under NCCL, too. A rank is connected with those that it
# exchanges with (neighbours, and a tree) when it first does, and not with each of R - 1 others at the start (torch 2.8).
GLOO_ENVIRONMENT = {"TORCH_GLOO_LAZY_INIT": "1"}


class Place(NamedTuple):
    """Where a rank computes. gpu: the UUID of its GPU, None on a CPU. problem: why it has no device."""

    rank: int
    host: str
    backend: str
    gpu: str | None
    problem: str | None = None

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host}"


def device_name(device: torch.device) -> str:
    """For people: the card's name, or CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def shares_gpus() -> bool:
    return os.environ.get(SHARE_GPU) == "1"


def backend_of(device: torch.device) -> str:
    """NCCL refuses two ranks on one GPU; gloo copies through the host."""
    return "nccl" if device.type == "cuda" and not shares_gpus() else "gloo"


def local_rank(environment: MutableMapping[str, str], rank: int, gpus: int) -> int:
    """This rank's number on its host. A launcher that does not tell it is taken to fill one host after the other."""
    given = environment.get("LOCAL_RANK")
    return int(given) if given else rank % max(1, gpus)


def choose_device(rank: int) -> torch.device:
    """This rank's device, made the current one. Raises UserError when its host has no GPU for it."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    local = local_rank(os.environ, rank, gpus)
    if gpus == 0:
        os.environ.setdefault("LOCAL_RANK", str(local))
        return torch.device("cpu")
    if local < gpus:
        index = local
    elif shares_gpus():
        index = local % gpus
    elif gpus == 1:  # its own, or another rank has it, too: `fault_of` sees that
        index = 0
    else:
        raise UserError(
            f"LOCAL_RANK = {local} has no GPU: {socket.gethostname()} shows {gpus}. "
            "Start one process a GPU (--num_gpus, --nproc_per_node or --ntasks-per-node)."
        )
    torch.cuda.set_device(index)
    os.environ["LOCAL_RANK"] = str(index)  # deepspeed asks for it, and computes on the GPU of this number
    return torch.device("cuda", index)


def place_rank(store: Store, rank: int, size: int) -> torch.device:
    """This rank's device, after all ranks have found that their places fit. Collective over the store.

    Raises the same UserError on all ranks when they do not.
    """
    host = socket.gethostname()
    try:
        device = choose_device(rank)
        gpu = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None
        place = Place(rank, host, backend_of(device), gpu)
    except UserError as error:
        device, place = torch.device("cpu"), Place(rank, host, "none", None, str(error))
    agree(store, place, size)
    return device


def agree(store: Store, place: Place, size: int) -> None:
    """Tell all ranks where this one is. Raises UserError, on all ranks, when their places do not fit."""
    store.set(f"place/{place.rank}", json.dumps(place))
    if place.rank == 0:
        keys = [f"place/{rank}" for rank in range(size)]
        store.wait(keys)
        fault = fault_of([Place(*json.loads(value)) for value in store.multi_get(keys)])
        store.set("place/fault", fault or "")
    given = store.get("place/fault").decode()
    if not given:
        return
    read, until = store.add("place/read", 1), time.monotonic() + READ_S
    while place.rank == 0 and read < size and time.monotonic() < until:
        time.sleep(0.05)
        read = store.add("place/read", 0)
    raise UserError(given)


def fault_of(places: Sequence[Place]) -> str | None:
    """Why ranks at these places cannot train together, or None."""
    for place in places:
        if place.problem:
            return f"{place}: {place.problem}"
    with_gpu, without = (
        [place for place in places if place.gpu],
        [place for place in places if not place.gpu],
    )
    if with_gpu and without:
        return (
            f"{without[0]} sees no GPU, {with_gpu[0]} does ({len(without)} and {len(with_gpu)} ranks). "
            "Look at CUDA_VISIBLE_DEVICES and `nvidia-smi` there, or hide the GPUs of all: CUDA_VISIBLE_DEVICES=''."
        )
    backends = {place.backend: place for place in reversed(places)}
    if len(backends) > 1:
        return f"{SHARE_GPU} = 1 for {backends['gloo']}, but not for {backends['nccl']}. Export it for all ranks or none."
    by_gpu: dict[str, list[Place]] = defaultdict(list)
    for place in with_gpu:
        by_gpu[place.gpu or ""].append(place)
    for gpu, sharing in by_gpu.items():
        if len(sharing) > 1 and "nccl" in backends:
            return (
                f"{sharing[0]} and {sharing[1]} have the same GPU ({gpu}). Start as many processes on a host as it has "
                "GPUs, and show each all of them with a LOCAL_RANK of its own (--gpus-per-node), or one of its own "
                f"(--gpus-per-task=1). {SHARE_GPU}=1 lets them share it: slow, for tests on one card."
            )
    return None
