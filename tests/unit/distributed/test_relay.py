"""A relayed store is rank 0's store, and what one client waits for holds up no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from unsee_dist.distributed import relay, sockets
from unsee_dist.distributed.relay import Relay, RelayedStore, find_relay, place_of
from unsee_dist.files.process import own_process

WAIT = timedelta(seconds=20)


@pytest.fixture(scope="module")
def root() -> Store:
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=WAIT)


@pytest.fixture(scope="module")
def place(root: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("host") / "store.json"
    Relay(root.clone(), place)
    return place


@pytest.fixture
def relayed(place: Path) -> RelayedStore:
    store = find_relay(place, lambda: False, WAIT)
    assert store is not None
    return store


def test_every_operation_is_rank_0s(root: Store, relayed: RelayedStore) -> None:
    every_byte = bytes(range(256))
    relayed.set("a", every_byte)
    assert root.get("a") == every_byte
    root.set("b", "grün")
    assert relayed.get("b") == "grün".encode()
    relayed.set("c", "grün")
    assert root.get("c") == "grün".encode()
    assert (relayed.add("n", 2), root.add("n", 3), relayed.add("n", 0)) == (2, 5, 5)
    assert relayed.check(["a", "b"])
    assert not relayed.check(["a", "nothing"])
    assert relayed.multi_get(["b", "a"]) == ["grün".encode(), every_byte]
    relayed.multi_set(["d", "e"], [b"1", b"2"])
    assert root.multi_get(["d", "e"]) == [b"1", b"2"]
    relayed.append("e", b"3")
    assert root.get("e") == b"23"
    assert relayed.compare_set("d", b"1", b"4") == b"4"
    assert relayed.compare_set("d", b"1", b"5") == b"4"
    assert relayed.num_keys() == root.num_keys()
    assert relayed.delete_key("d")
    assert not root.check(["d"])


def test_it_serves_as_the_store_of_torchs_own_code(root: Store, relayed: RelayedStore) -> None:
    """PrefixStore calls it from C++, which keeps no reference to what is Python's of it."""
    prefixed = PrefixStore("p", find_relay_again(relayed))
    prefixed.set("x", "1")
    assert root.get("p/x") == b"1"
    again = prefixed.clone()
    del prefixed
    assert again.get("x") == b"1"
    again.wait(["x"], timedelta(seconds=1))


def find_relay_again(store: RelayedStore) -> RelayedStore:
    return store.clone()


def test_what_one_waits_for_holds_up_no_other(root: Store, relayed: RelayedStore) -> None:
    got: list[bytes] = []
    waiting = threading.Thread(target=lambda: got.append(relayed.get("late")))
    waiting.start()
    other, began = relayed.clone(), time.monotonic()
    other.set("meanwhile", "1")
    relayed.set("of the same client", "1")  # within the second that it is asked for at a time
    assert time.monotonic() - began < 5
    root.set("late", "x")
    waiting.join(10)
    assert got == [b"x"]


def test_a_key_that_does_not_come_is_torchs_own_error(relayed: RelayedStore) -> None:
    with pytest.raises(dist.DistStoreError, match="never"):
        relayed.wait(["never"], timedelta(seconds=0.2))
    relayed.set_timeout(timedelta(seconds=0.2))
    with pytest.raises(dist.DistStoreError, match="never"):
        relayed.get("never")


def test_a_relay_that_has_ended_or_is_not_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "FIND_S", 0.3)
    place = tmp_path / "store.json"
    assert find_relay(place, lambda: False, WAIT) is None
    ended = subprocess.Popen([sys.executable, "-c", ""])
    process = own_process()._replace(pid=ended.pid)
    ended.wait()
    for text in (json.dumps([9, *process]), "{", "[]"):
        place.write_text(text)
        assert find_relay(place, lambda: False, WAIT) is None
    began = time.monotonic()
    monkeypatch.setattr(relay, "FIND_S", 60)
    assert find_relay(place, lambda: True, WAIT) is None, "asked to end"
    assert time.monotonic() - began < 30
    assert place_of("n1", "29500") != place_of("n1", "29501")


def test_what_is_asked_is_not_kept(place: Path, relayed: RelayedStore) -> None:
    port = json.loads(place.read_text())[0]
    local = TCPStore("127.0.0.1", port, is_master=False, wait_for_workers=False, timeout=WAIT)
    before = local.num_keys()
    for number in range(20):
        relayed.set("again", str(number))
    assert local.num_keys() <= before + 1


ENDING = """
import sys
from datetime import timedelta
from pathlib import Path
from torch._C._distributed_c10d import TCPStore
from unsee_dist.distributed.relay import Relay, find_relay
place, wait = Path(sys.argv[1]), timedelta(seconds=20)
root = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=wait)
Relay(root.clone(), place)
clients = [find_relay(place, lambda: False, wait) for _ in range(4)]
print([client.add("n", 1) for client in clients])
"""


def test_a_process_with_a_relay_ends_as_others_do(tmp_path: Path) -> None:
    """Threads that are in C++ when Python ends would end the process with SIGABRT."""
    command = [sys.executable, "-c", ENDING, str(tmp_path / "store.json")]
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        assert (done.returncode, done.stdout) == (0, "[1, 2, 3, 4]\n"), done.stderr
        assert "terminate" not in done.stderr


def test_rank_0_stays_below_1024_files_at_1024_ranks() -> None:
    assert sockets.store_connections(1024, 8) + sockets.OTHERS < 1024
    assert sockets.store_connections(1024, 1) > 1024, "the control: a host each, and none to relay"
    assert sockets.store_connections(256, 8) + sockets.OTHERS < 1024


@pytest.mark.parametrize(
    ("environment", "size", "relays"),
    [
        ({"LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "8"}, 257, True),
        ({"LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "8"}, 256, False),
        ({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}, 1024, False),
        ({"LOCAL_RANK": "0"}, 1024, True),
        ({}, 1024, False),
    ],
)
def test_which_runs_have_relays(environment: dict[str, str], size: int, relays: bool) -> None:
    assert sockets.is_relayed(environment, size) == relays


LIMITED = """
import resource, sys
from unsee_dist.distributed.sockets import open_files
from unsee_dist.errors import UserError
soft, hard, size = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
try:
    open_files({"LOCAL_WORLD_SIZE": "1"}, 0, size)
except UserError as error:
    print(error)
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def limited(*arguments: int) -> str:
    command = [sys.executable, "-c", LIMITED, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout


def test_the_limit_of_open_files_is_raised_and_one_that_is_too_low_is_a_sentence() -> None:
    assert limited(256, 4096, 1024) == "(4096, 4096)\n"
    refusal = limited(256, 1024, 1024)
    assert refusal.startswith(
        "WORLD_SIZE = 1024: rank 0 needs 2304 open files for that many ranks, and this host allows 1024."
    )
    assert limited(256, 1024, 8) == "(1024, 1024)\n"
