"""The processes of a run: ranks from any launcher, the device, and errors that all ranks share.

`deepspeed` and `torchrun` set RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; a bare `srun`
sets SLURM_* only; plain `python` sets nothing and is a world of one.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore, PrefixStore, Store, TCPStore
from torch.distributed.rendezvous import rendezvous

from unsee_dist.distributed.collectives import all_gather
from unsee_dist.distributed.placement import (
    GLOO_ENVIRONMENT,
    NCCL_ENVIRONMENT,
    backend_of,
    choose_device,
    place_rank,
)
from unsee_dist.distributed.relay import Relay, find_relay, place_of
from unsee_dist.distributed.sockets import asks_by_relay, is_relayed, open_files
from unsee_dist.errors import ExitCode, TransientError, UserError, exit_code_of, foreseen
from unsee_dist.log import LOG

Shared = TypeVar("Shared")
TIMEOUT = timedelta(minutes=10)  # until the configuration is read; then groups.torch_timeout_s
POLL_S = 0.2
READ_S = 5.0  # a rank that ends before all have met waits so long for the others to hear it
CONNECT_S = 30  # our own store answers at once where it listens


@dataclass(frozen=True)
class World:
    """This process among the processes of a run. `device` is where its tensors live."""

    rank: int
    size: int
    local_rank: int
    device: torch.device

    @classmethod
    def alone(cls) -> World:
        return cls(0, 1, 0, torch.device("cpu"))


def adopt_slurm(environment: MutableMapping[str, str]) -> None:
    """Translate a bare `srun` (one task a rank) into the variables of torchrun; other environments stay as they are.

    SLURM_STEP_NUM_TASKS exists only inside a step: a batch script that calls python directly stays one process.
    """
    if "RANK" in environment or "SLURM_STEP_NUM_TASKS" not in environment:
        return
    environment["RANK"] = environment["SLURM_PROCID"]
    environment["LOCAL_RANK"] = environment["SLURM_LOCALID"]
    environment["WORLD_SIZE"] = environment["SLURM_STEP_NUM_TASKS"]
    if "MASTER_ADDR" not in environment:
        environment["MASTER_ADDR"] = _first_host(environment["SLURM_STEP_NODELIST"])
    environment.setdefault("MASTER_PORT", str(port_of_job(int(environment["SLURM_JOB_ID"]))))


def port_of_job(job: int) -> int:
    """The port at which the ranks of a Slurm job meet, as in slurm/*.sh: 20000 to 32767, below Linux's ephemeral ports
    (from 32768 on), one of which any outgoing connection of the node may hold."""
    return 20000 + job % 12768


def _first_host(nodelist: str) -> str:
    """The address of the first node: Slurm's name of a node need not be one that the network knows."""
    try:
        listed = subprocess.run(
            ["scontrol", "show", "hostnames", nodelist], capture_output=True, text=True, check=True
        )
        node = ["scontrol", "show", "node", listed.stdout.split()[0]]
        shown = subprocess.run(node, capture_output=True, text=True, check=True)
        return re.findall(r"NodeAddr=(\S+)", shown.stdout)[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise UserError(
            f"SLURM_STEP_NODELIST = {nodelist} could not be read by scontrol. Export MASTER_ADDR in the batch script."
        ) from error


def join_world(stopped: Callable[[], bool] = lambda: False) -> World:
    """Join the process group that the launcher describes. stopped: whether this rank is asked to end instead.

    Raises UserError with what to change; SharedUserError where all ranks raise the same; MeetingStopped where one was
    asked to end before all had come.
    """
    adopt_slurm(os.environ)
    for name, value in GLOO_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"  # deepspeed would guess from what is installed
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if dist.is_initialized():  # by Ray, or by an earlier call
        device = choose_device(rank)
    elif size == 1 and "MASTER_ADDR" not in os.environ:
        os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")  # deepspeed reads them
        device = choose_device(rank)
        _init(device, HashStore(), rank, size)
    else:
        open_files(os.environ, rank, size)
        store = _open_store(rank, size, stopped)
        if is_relayed(os.environ, size) and os.environ["LOCAL_RANK"] == "0":
            Relay(store.clone(), place_of(os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]))  # type: ignore[attr-defined]  # not in torch's stubs
        _meet(PrefixStore("meeting", store), rank, size, stopped)
        try:
            device = place_rank(PrefixStore("unsee", store), rank, size)
        except UserError as error:
            raise SharedUserError(str(error)) from error
        _init(device, store, rank, size)
    return World(rank, size, int(os.environ.get("LOCAL_RANK", 0)), device)


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


class MeetingStopped(Exception):
    """A rank was asked to end before all ranks had met."""


def _meet(store: Store, rank: int, size: int, stopped: Callable[[], bool]) -> None:
    """Wait until all ranks are here; a signal to one of them ends the wait of all. UserError: some never come."""
    until = time.monotonic() + TIMEOUT.total_seconds()
    here = store.add("here", 1)
    while here < size:
        if stopped() or store.check(["stopped"]):
            store.set("stopped", "")
            _let_others_read(store, rank)
            raise MeetingStopped
        if time.monotonic() > until:
            raise UserError(
                f"{size - here} of {size} ranks have not come in {TIMEOUT}: look at their output."
            )
        time.sleep(POLL_S)
        here = store.add("here", 0)


def _let_others_read(store: Store, rank: int) -> None:
    """Rank 0, which may serve the store, leaves last."""
    left, until = store.add("left", 1), time.monotonic() + READ_S
    while rank == 0 and left < store.add("here", 0) and time.monotonic() < until:
        time.sleep(POLL_S)
        left = store.add("left", 0)


def _open_store(rank: int, size: int, stopped: Callable[[], bool]) -> Store:
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if not address or not port:
        raise UserError(
            f"WORLD_SIZE = {size} but MASTER_ADDR = {address} and MASTER_PORT = {port}. "
            "Start with `deepspeed`, `torchrun` or `srun`, which set all of them."
        )

    def relayed() -> Store | None:
        asks = asks_by_relay(os.environ, size)
        return find_relay(place_of(address, port), stopped, TIMEOUT) if asks else None

    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # torchrun's agent has opened the store
        _wait_for_listener(address, int(port), stopped, timedelta(seconds=CONNECT_S))
        if (by_relay := relayed()) is not None:
            return by_relay
        store, _, _ = next(rendezvous("env://", rank, size, timeout=TIMEOUT))
        store.set_timeout(TIMEOUT)
        return PrefixStore("default_pg", store)
    if rank == 0:
        return _host_store(address, int(port), size)
    _wait_for_listener(address, int(port), stopped)
    return relayed() or _connect_store(address, int(port), size)


def _host_store(address: str, port: int, size: int) -> TCPStore:
    try:
        return TCPStore(address, port, size, is_master=True, timeout=TIMEOUT, wait_for_workers=False)
    except dist.DistNetworkError as error:
        text = str(error).lower()
        if "eaddrinuse" in text or "address already in use" in text:
            raise UserError(_in_use(address, port)) from error
        raise UserError(_unreachable(address, port)) from error


def _wait_for_listener(
    address: str, port: int, stopped: Callable[[], bool], timeout: timedelta = TIMEOUT
) -> None:
    """Until somebody listens there. MeetingStopped: this rank was asked to end, and found nobody to tell in READ_S."""
    until, stopping = time.monotonic() + timeout.total_seconds(), False
    while not _listens(address, port):
        if stopped() and not stopping:
            until, stopping = time.monotonic() + READ_S, True
        if time.monotonic() > until and stopping:
            raise MeetingStopped
        if time.monotonic() > until:
            raise UserError(_unreachable(address, port))
        time.sleep(POLL_S)


def _connect_store(address: str, port: int, size: int) -> TCPStore:
    """Rank 0's store. torch alone waits for ever when another program owns that port."""
    opened: list[TCPStore] = []
    failed: list[Exception] = []

    def connect() -> None:
        try:
            store = TCPStore(address, port, size, is_master=False, timeout=TIMEOUT, wait_for_workers=False)
            opened.append(store)
        except dist.DistError:  # said below
            pass
        except Exception as error:
            failed.append(error)

    connecting = threading.Thread(target=connect, daemon=True)
    connecting.start()
    connecting.join(CONNECT_S)
    if failed:
        raise failed[0]
    if not opened:
        raise UserError(_in_use(address, port))
    return opened[0]


def _listens(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=10):
            return True
    except socket.gaierror as error:
        raise UserError(_unreachable(address, port)) from error
    except OSError:
        return False


def _in_use(address: str, port: int) -> str:
    return (
        f"MASTER_PORT = {port} is in use on {address}. Choose another: "
        f"`deepspeed --master_port {port + 1} ...` or `torchrun --master-port {port + 1} ...`."
    )


def _unreachable(address: str, port: int) -> str:
    return (
        f"MASTER_ADDR:MASTER_PORT = {address}:{port} cannot be reached from {socket.gethostname()}. "
        "Write the first host's address and a port that is open between the hosts."
    )


def leave_world(code: int = ExitCode.COMPLETE) -> None:
    """Leave the process group. After a failure under NCCL the process ends here, with `code`: to destroy the group would
    wait for collectives that were issued, and that the other ranks may never join."""
    if not dist.is_initialized():
        return
    if code != ExitCode.COMPLETE and dist.get_backend() == "nccl":
        _end_process(code)
    dist.destroy_process_group()


class SharedUserError(UserError):
    """A mistake of the user, raised on every rank; rank 0 prints it."""


class SharedTransientError(TransientError):
    """A passing fault, raised on every rank; rank 0 prints it."""


class PeerFailed(RuntimeError):
    """A bug on another rank, which prints its own traceback."""


class Failure(NamedTuple):
    """The error of one rank inside `share_errors`."""

    rank: int
    code: ExitCode
    sentence: str


@contextmanager
def share_errors(world: World, group: dist.ProcessGroup | None = None) -> Iterator[None]:
    """An error of one rank inside the block is raised on every rank, so no rank waits for one that is gone. Collective.

    A mistake of the user becomes SharedUserError on all ranks and a passing fault SharedTransientError. A bug keeps its
    type and traceback on the rank that has it; the others raise PeerFailed. group: of all ranks, None = torch's default.
    """
    own: Exception | None = None
    try:
        yield
    except Exception as error:
        own = error
    everyone: list[Failure | None] = [None]
    if own is not None:
        everyone = [Failure(world.rank, exit_code_of(own), str(foreseen(own) or own))]
    if world.size > 1:
        gathered: list[Failure | None] = [None] * world.size
        dist.all_gather_object(gathered, everyone[0], group=group)
        everyone = gathered
    failures = [failure for failure in everyone if failure is not None]
    if not failures:
        return
    if own is not None and exit_code_of(own) is ExitCode.BUG:
        raise own
    # a bug before a mistake before a passing fault
    worst = min(failures, key=lambda failure: (failure.code, failure.rank))
    if worst.code is ExitCode.BUG:
        raise PeerFailed(f"rank {worst.rank} has failed; its traceback is above or in its own log")
    kind = SharedUserError if worst.code is ExitCode.MISTAKE else SharedTransientError
    raise kind(worst.sentence) from own


def exit_together(world: World, code: int) -> NoReturn:
    """End this process with `code`, at the same moment as all others. Collective.

    A launcher that sees one rank fail kills the others (srun within milliseconds), and the job then has the exit code
    of a killed process. Shutting down python takes longer than that.
    """
    wait_for_all(world)
    _end_process(code)


def _end_process(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait_for_all(world: World) -> None:
    if world.size > 1:
        dist.barrier()


def from_rank_0(world: World, value: Shared) -> Shared:
    """Rank 0's value on every rank. Collective."""
    shared = [value]
    if world.size > 1:
        dist.broadcast_object_list(shared, src=0)
    return shared[0]


def gather_rows(world: World, rows: torch.Tensor) -> torch.Tensor:
    """(n, D) of every rank, equal n, in rank order: (R n, D). Outside autograd."""
    if world.size == 1:
        return rows
    rows = rows.to(world.device)
    out = torch.empty(world.size * len(rows), *rows.shape[1:], dtype=rows.dtype, device=rows.device)
    all_gather(out, rows.contiguous())
    return out


def print_on_rank_0(world: World, sentence: str) -> None:
    if world.rank == 0:
        LOG.info(sentence)
