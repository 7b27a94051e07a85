"""Rendezvous: the ranks find each other at MASTER_ADDR:MASTER_PORT, through a key-value store that rank 0 or torchrun serves."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.distributed.rendezvous import rendezvous

from unsee_dist.distributed.relay import find_relay, place_of
from unsee_dist.distributed.sockets import asks_by_relay
from unsee_dist.errors import TransientError, UserError, is_transient

TIMEOUT = timedelta(minutes=10)  # until the configuration is read; then groups.torch_timeout_s
POLL_S = 0.2
READ_S = 5.0  # a rank that ends before all have met waits so long for the others to hear it
CONNECT_S = 30  # our own store answers at once where it listens


class RendezvousStopped(Exception):
    """A rank was asked to end before all ranks had met."""


def meet(store: Store, rank: int, size: int, stopped: Callable[[], bool]) -> None:
    """Wait until all ranks are here; a signal to one of them ends the wait of all. TransientError: some never come,
    on a machine that is slow, or that failed and that the next start is without."""
    until = time.monotonic() + TIMEOUT.total_seconds()
    here = store.add("here", 1)
    while here < size:
        if stopped() or store.check(["stopped"]):
            store.set("stopped", "")
            _let_others_read(store, rank)
            raise RendezvousStopped
        if time.monotonic() > until:
            raise TransientError(
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


def open_store(rank: int, size: int, stopped: Callable[[], bool]) -> Store:
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
    """Until somebody listens there. RendezvousStopped: this rank was asked to end, and found nobody to tell in READ_S.

    TransientError: nobody does, though the host is known; its machine may be slow, or lost. UserError: no such host.
    """
    until, stopping = time.monotonic() + timeout.total_seconds(), False
    while not _listens(address, port):
        if stopped() and not stopping:
            until, stopping = time.monotonic() + READ_S, True
        if time.monotonic() > until and stopping:
            raise RendezvousStopped
        if time.monotonic() > until:
            raise TransientError(
                f"nobody listens at MASTER_ADDR:MASTER_PORT = {address}:{port} after {timeout}, as seen from "
                f"{socket.gethostname()}: look at the output of rank 0, and whether that port is open between the hosts."
            )
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
    except (socket.gaierror, UnicodeError) as error:  # UnicodeError: no name of a host, such as "a..b"
        if is_transient(error):
            return False
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
