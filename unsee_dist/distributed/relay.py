"""The ranks' store for the ranks of one host through one of them, so that rank 0 has few connections from each host.

torch's store is a server in rank 0's process (under torchrun: in its agent), with two connections from every rank: one of torch, one
of the watchdog. At 1,024 ranks that is twice the usual limit of open files. Here the first rank of each host (LOCAL_RANK 0) asks rank 0
for the others:

    rank 0's store  <- one connection a host -  relay  <- a store of torch's on this host -  RelayedStore of each other rank

A question is a value in the host's store ("client/number/asked"), its answer another; both are removed once they are read. A
relayed rank and one that is not see the same keys. Where no relay is found, a rank asks rank 0 itself.
"""

from __future__ import annotations

import atexit
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch.distributed as dist
from torch._C._distributed_c10d import Store, TCPStore

from unsee_dist.errors import ends_process
from unsee_dist.files import atomic
from unsee_dist.files.process import Process, has_ended, own_process

HOST = "127.0.0.1"
CLIENTS = "clients"
POLL_S = 0.02
FIND_S = 30.0  # a relay opens when rank 0 answers its rank, which all ranks wait for
CLOSE_S = 5.0
FOR_EVER = timedelta(days=365)
KEPT: list[Store] = []  # torch's groups hold a store, but not what is Python's of it


class Relay:
    """Serves the ranks of this host, from threads of this process, until it ends."""

    def __init__(self, root: Store, place: Path) -> None:
        self._root, self._asking, self._closing = root, threading.Lock(), False
        self._local = TCPStore(HOST, 0, is_master=True, wait_for_workers=False, timeout=FOR_EVER)
        self._threads: list[threading.Thread] = []
        self._awaited: dict[str, str] = {}  # thread -> the key that it waits for
        self._start("relay", self._accept)
        atexit.register(
            self._close
        )  # a thread in a call of C++ at the end of Python ends the process with SIGABRT
        atomic.write_file(place, json.dumps([self._local.port, *own_process()]))

    def _start(self, name: str, work: Callable[[str], None]) -> None:
        @ends_process  # the ranks of this host wait for it
        def serve() -> None:
            try:
                work(name)
            except Exception:
                if not self._closing:  # while the process ends, an error means nothing
                    raise

        thread = threading.Thread(target=serve, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _close(self) -> None:
        self._closing = True
        with suppress(dist.DistError):
            for key in list(self._awaited.values()):
                self._local.set(key, "null")
        for thread in self._threads:
            thread.join(CLOSE_S)

    def _wait(self, local: Store, name: str, key: str) -> bytes:
        self._awaited[name] = key
        value = b"null" if self._closing else local.get(key)
        local.delete_key(key)
        return value

    def _accept(self, name: str) -> None:
        local, client = _client(self._local.port), 0
        with suppress(dist.DistError):  # this host's own store is gone: the process ends
            while True:
                client += 1
                self._wait(local, name, f"{CLIENTS}/{client}")
                if self._closing:
                    return
                self._start(f"relay of client {client}", partial(self._serve, client))

    def _serve(self, client: int, name: str) -> None:
        local, number = _client(self._local.port), 0
        with suppress(dist.DistError):
            while True:
                number += 1
                request = json.loads(self._wait(local, name, f"{client}/{number}/asked"))
                if self._closing:
                    return
                operation, *arguments = request
                try:
                    answer = [self._answer(operation, arguments), None]
                except dist.DistError as error:  # rank 0's store is gone, or refuses this
                    answer = [None, str(error)]
                local.set(f"{client}/{number}/answer", json.dumps(answer))

    def _answer(self, operation: str, arguments: list[Any]) -> Any:
        if (
            operation == "wait"
        ):  # rank 0 is asked again and again: a question that waits there would hold up all others
            keys, until = arguments[0], time.monotonic() + arguments[1]
            while not self._ask(lambda root: root.check(keys)):
                if time.monotonic() > until or self._closing:
                    return False
                time.sleep(POLL_S)
            return True
        return self._ask(OPERATIONS[operation], *arguments)

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        with self._asking:
            return question(self._root, *arguments)


# None of them waits: a key that is read is there. Bytes travel as Latin-1.
OPERATIONS: dict[str, Callable[..., Any]] = {
    "set": lambda root, key, value: root.set(key, _bytes(value)),
    "add": lambda root, key, value: root.add(key, value),
    "check": lambda root, keys: root.check(keys),
    "compare_set": lambda root, key, *values: _text(root.compare_set(key, *map(_bytes, values))),
    "append": lambda root, key, value: root.append(key, _bytes(value)),
    "multi_get": lambda root, keys: [_text(value) for value in root.multi_get(keys)],
    "multi_set": lambda root, keys, values: root.multi_set(keys, [_bytes(value) for value in values]),
    "delete_key": lambda root, key: root.delete_key(key),
    "num_keys": lambda root: root.num_keys(),
}


class RelayedStore(Store):
    """Rank 0's store by way of the relay of this host. DistNetworkError: either is gone; DistStoreError: a key did not come."""

    def __init__(self, port: int, timeout: timedelta) -> None:
        super().__init__()
        self.set_timeout(timeout)
        self._port, self._lock, self._number = port, threading.Lock(), 0
        self._local = _client(port)
        self._client = self._local.add(CLIENTS, 1)
        self._local.set(f"{CLIENTS}/{self._client}", "")
        KEPT.append(self)

    def _ask(self, operation: str, *arguments: Any) -> Any:
        with self._lock:
            self._number += 1
            place = f"{self._client}/{self._number}"
            self._local.set(f"{place}/asked", json.dumps([operation, *arguments]))
            answer, refusal = json.loads(self._local.get(f"{place}/answer"))
            self._local.delete_key(f"{place}/answer")
            if refusal is not None:
                raise dist.DistNetworkError(refusal)
            return answer

    def set(self, key: str, value: str | bytes) -> None:
        self._ask("set", key, _text(value))

    def get(self, key: str) -> bytes:
        return self.multi_get([key])[0]

    def add(self, key: str, value: int) -> int:
        return int(self._ask("add", key, value))

    def check(self, keys: list[str]) -> bool:
        return bool(self._ask("check", keys))

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        """Rank 0 is asked for a second at a time: in between, other threads may ask."""
        until = time.monotonic() + (timeout or self._most()).total_seconds()
        while not self._ask("wait", keys, min(1.0, max(0.0, until - time.monotonic()))):
            if time.monotonic() >= until:
                raise dist.DistStoreError(f"wait timeout for {', '.join(keys[:3])}")
            time.sleep(POLL_S)  # else this thread would have the lock again before any other

    def compare_set(self, key: str, expected: str | bytes, desired: str | bytes) -> bytes:
        return _bytes(self._ask("compare_set", key, _text(expected), _text(desired)))

    def append(self, key: str, value: str | bytes) -> None:
        self._ask("append", key, _text(value))

    def multi_get(self, keys: list[str]) -> list[bytes]:
        self.wait(keys)
        return [_bytes(value) for value in self._ask("multi_get", keys)]

    def multi_set(self, keys: list[str], values: list[str | bytes]) -> None:
        self._ask("multi_set", keys, [_text(value) for value in values])

    def delete_key(self, key: str) -> bool:
        return bool(self._ask("delete_key", key))

    def num_keys(self) -> int:
        return int(self._ask("num_keys"))

    def has_extended_api(self) -> bool:
        return True

    def clone(self) -> RelayedStore:
        """The same store for another thread, whose questions wait for none of this one's."""
        return RelayedStore(self._port, self._most())

    def _most(self) -> timedelta:
        """That a key is waited for, as torch has set it."""
        return cast("timedelta", self.timeout)  # type: ignore[attr-defined]  # not in torch's stubs


def _client(port: int) -> TCPStore:
    return TCPStore(HOST, port, is_master=False, wait_for_workers=False, timeout=FOR_EVER)


def place_of(address: str, port: str) -> Path:
    """Where the relay of this host says how it is reached. A run is known by the address at which its ranks meet."""
    name = f"unsee-store-{os.getuid()}-{address.replace('/', '_')}-{port}.json"
    return Path(tempfile.gettempdir()) / name


def find_relay(place: Path, stopped: Callable[[], bool], timeout: timedelta) -> RelayedStore | None:
    """The store by this host's relay; None where there is none in FIND_S, or this rank is asked to end."""
    until = time.monotonic() + FIND_S
    while time.monotonic() < until and not stopped():
        with suppress(OSError, ValueError, dist.DistError):  # not there yet, or of a run that has ended
            port, *process = json.loads(place.read_bytes())
            if place.stat().st_uid == os.getuid() and not has_ended(Process(*process)):
                return RelayedStore(port, timeout)
        time.sleep(POLL_S)
    return None


def _text(value: str | bytes) -> str:
    return (value.encode() if isinstance(value, str) else value).decode("latin-1")


def _bytes(value: str) -> bytes:
    return value.encode("latin-1")
