"""The process group of a run: joined under any launcher, left, and ended on all ranks at once.

`deepspeed` and `torchrun` set RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; a bare `srun`
sets SLURM_* only; plain `python` sets nothing and is a world of one.
"""

from __future__ import annotations

import multiprocessing.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore, PrefixStore, Store

from unsee_dist.distributed.placement import (
    GLOO_ENVIRONMENT,
    NCCL_ENVIRONMENT,
    backend_of,
    choose_device,
    place_rank,
)
from unsee_dist.distributed.relay import Relay, place_of
from unsee_dist.distributed.rendezvous import TIMEOUT, meet, open_store
from unsee_dist.distributed.shared_errors import SharedUserError
from unsee_dist.distributed.slurm import adopt_slurm
from unsee_dist.distributed.sockets import asks_by_relay, is_relayed, open_files
from unsee_dist.distributed.world import World, wait_for_all
from unsee_dist.errors import ExitCode, TransientError, UserError


def join_world(stopped: Callable[[], bool] = lambda: False) -> World:
    """Join the process group that the launcher describes. stopped: whether this rank is asked to end instead.

    Raises UserError with what to change; SharedUserError where all ranks raise the same; TransientError where a rank does
    not come, or is gone again; RendezvousStopped where one was asked to end before all had come.
    """
    adopt_slurm(os.environ)
    for name, value in GLOO_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"  # deepspeed would guess from what is installed
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    by_relay = asks_by_relay(os.environ, size)  # before a place is found, which may change LOCAL_RANK
    alone = size == 1 and "MASTER_ADDR" not in os.environ
    if alone:
        os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")  # deepspeed reads them
    if dist.is_initialized():  # by Ray, or by an earlier call
        device = choose_device(rank)
    elif alone:
        device = choose_device(rank)
        _init(device, HashStore(), rank, size)
    else:
        open_files(os.environ, rank, size)
        store = open_store(rank, size, stopped)
        if is_relayed(os.environ, size) and os.environ["LOCAL_RANK"] == "0":
            Relay(store.clone(), place_of(os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]))  # type: ignore[attr-defined]  # not in torch's stubs
        with lost_rank_is_transient():
            meet(PrefixStore("meeting", store), rank, size, stopped)
            device = place_rank(PrefixStore("unsee", store), rank, size)
        _init(device, store, rank, size)
    return World(rank, size, int(os.environ.get("LOCAL_RANK", 0)), device, by_relay)


@contextmanager
def lost_rank_is_transient() -> Iterator[None]:
    """While the ranks talk through the store: what one of them may not use is said on all, and one may be gone again."""
    try:
        yield
    except UserError as error:
        raise SharedUserError(str(error)) from error
    except (
        dist.DistError
    ) as error:  # of the store: a wait of TIMEOUT, or the process that serves it has ended
        raise TransientError(
            f"a rank is gone before training has begun ({_first_line(error)}): look at the output of the others."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _init(device: torch.device, store: Store, rank: int, size: int) -> None:
    backend = backend_of(device)
    if backend == "nccl":
        for name, value in NCCL_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    # the device: else NCCL guesses it from the rank at the first barrier, and every new group meets anew
    bound = device if backend == "nccl" else None
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT, device_id=bound
    )


def leave_world(code: int = ExitCode.COMPLETE) -> None:
    """Leave the process group. After a failure under NCCL the process ends here, with `code`: to destroy the group would
    wait for collectives that were issued, and that the other ranks may never join."""
    if not dist.is_initialized():
        return
    if code != ExitCode.COMPLETE and dist.get_backend() == "nccl":
        _end_process(code)
    dist.destroy_process_group()


def exit_together(world: World, code: int) -> NoReturn:
    """End this process with `code`, at the same moment as all others. Collective.

    A launcher that sees one rank fail kills the others (srun within milliseconds), and the job then has the exit code
    of a killed process. Shutting down python takes longer than that.
    """
    wait_for_all(world)
    _end_process(code)


def _end_process(code: int) -> NoReturn:
    # What Python's own end does first. Else multiprocessing's tracker says that the semaphores of the workers are leaked.
    multiprocessing.util._run_finalizers(0)  # type: ignore[attr-defined]  # not in its stubs
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
