"""Sockets and messages of rank 0's store, the watchdog and the groups of checkpoints and exports: real ones, counted.

    python -m unsee_dist.bench.store RANKS RELAYED          a JSON line

Processes of this machine are the ranks; A_HOST of them play a host, with a folder for temporary files of their own. They meet, watch each
other and exchange what a save and an export exchange, by the code of a run. Then rank 0 counts in /proc.

    store             connections that rank 0's store holds
    rank_0, most      sockets of rank 0, these and those of the groups with them; and the most of any other rank
    asked, statuses   questions of a rank to the store in a period of the watchdog, and the statuses that it is sent: the most of any

At 1,024 ranks by the laws of sockets.py and watchdog.py, to which a test holds what is counted here (torch 2.13):

    store  = 2 R                    or, beyond 256 ranks, 3 H          R ranks on H hosts
    rank_0 = store + 9 + 2 log2(R)  and 6 for each rank of its host that it relays for, and 6
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from rich.table import Table

from unsee_dist.bench.launch import rows
from unsee_dist.bench.table import BenchRow, table
from unsee_dist.distributed import sockets
from unsee_dist.distributed.process_group import join_world
from unsee_dist.distributed.shared_errors import share_errors
from unsee_dist.distributed.world import from_rank_0, wait_for_all
from unsee_dist.errors import ExitCode, report
from unsee_dist.supervision.watchdog import Watchdog, watched
from unsee_dist.training.checkpoint.saving import Saver

A_HOST = 8
COUNTED = ((8, 0), (16, 0), (16, 1), (32, 0), (32, 1))  # ranks, relayed
PROJECTED = (8, 64, 256, 1024)
TIMEOUT_S = 120.0
ESTABLISHED = "01"


def measure(limit_s: float = 600.0) -> list[BenchRow]:
    environment = {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    return [
        row
        for given in COUNTED
        for row in rows(
            "unsee_dist.bench.store", list(map(str, given)), 1, environment=environment, limit_s=limit_s
        )
    ]


def projection() -> list[BenchRow]:
    """By the laws, A_HOST ranks on each host."""
    return [
        {
            "ranks": ranks,
            "store": sockets.store_connections(ranks, A_HOST),
            "rank_0": sockets_of_rank_0(ranks, ranks > sockets.RELAYED),
            "statuses": sum(len(watched(rank, ranks)) for rank in range(ranks)),
        }
        for ranks in PROJECTED
    ]


def sockets_of_rank_0(ranks: int, relayed: bool) -> int:
    """A_HOST ranks on each host; a power of two of ranks, which the groups' trees have."""
    relaying = 6 + 6 * (A_HOST - 1) if relayed else 0
    hosts = -(-ranks // A_HOST)
    store = sockets.OF_A_HOST * hosts if relayed else sockets.OF_A_RANK * ranks
    return store + 9 + 2 * (ranks.bit_length() - 1) + relaying


def pages(counted: Sequence[BenchRow], projected: Sequence[BenchRow]) -> list[Table]:
    names = ("store", "rank_0", "most", "asked", "statuses")
    counts_table = table(f"sockets and messages, counted ({A_HOST} ranks a host)", ("ranks, relayed", *names))
    for row in counted:
        counts_table.add_row(
            f"{row['ranks']}, {'yes' if row['relayed'] else 'no'}", *(str(row[name]) for name in names)
        )
    title = f"rank 0, {A_HOST} ranks a host: connections of its store, all its sockets; statuses that it sends in a period"
    expected = table(title, ("ranks", "connections", "sockets", "statuses"))
    for row in projected:
        expected.add_row(*(f"{row[name]:,}" for name in ("ranks", "store", "rank_0", "statuses")))
    return [counts_table, expected]


def count(ranks: int, relayed: bool, scratch: Path) -> BenchRow:
    """Forks a process for each rank of a run that is not on any GPU."""
    sockets.RELAYED = 1 if relayed else ranks  # the same code that more than 256 ranks run
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    reading, writing = os.pipe()
    children = []
    for rank in range(ranks):
        if (child := os.fork()) == 0:
            os.close(reading)
            _rank(rank, ranks, port, scratch, writing)
        children.append(child)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        lines = [json.loads(line) for line in pipe]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes) or len(lines) != ranks:
        raise RuntimeError(f"ranks ended with {codes}")
    (first,) = [each for each in lines if each["rank"] == 0]
    others = [each for each in lines if each["rank"] > 0]
    return {
        "ranks": ranks,
        "relayed": relayed,
        "store": first["store"],
        "rank_0": first["sockets"],
        "most": max(each["sockets"] for each in others),
        "asked": max(each["asked"] for each in lines),
        "statuses": max(each["statuses"] for each in lines),
    }


def _rank(rank: int, ranks: int, port: int, scratch: Path, pipe: int) -> NoReturn:
    host = scratch / f"host-{rank // A_HOST}"
    host.mkdir(exist_ok=True)
    tempfile.tempdir = str(host)
    local = {"LOCAL_RANK": rank % A_HOST, "LOCAL_WORLD_SIZE": A_HOST, "RANK": rank, "WORLD_SIZE": ranks}
    os.environ.update({name: str(value) for name, value in local.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    code = ExitCode.BUG
    try:
        torch.set_num_threads(1)
        world = join_world()
        watchdog = Watchdog(world, TIMEOUT_S)
        watchdog.start()
        saver, exporting = Saver(world, background=True), dist.new_group(backend="gloo")
        for group in (None, saver._group, exporting):
            with share_errors(world, group):
                pass
            dist.all_reduce(torch.ones(1024), group=group)
        saver._files_of_all_ranks([])
        from_rank_0(world, rank)
        wait_for_all(world)
        counts = _asked(watchdog)
        wait_for_all(world)
        line = {"rank": rank, "sockets": _sockets(), "store": _sockets(port), **counts}
        os.write(pipe, f"{json.dumps(line)}\n".encode())
        watchdog.announce_exit("it was counted")
        wait_for_all(world)
        code = ExitCode.COMPLETE
    except Exception as error:
        report(error, f"rank {rank}")
    finally:
        os._exit(code)


class _CountedStore:
    """A store whose questions are counted."""

    def __init__(self, store: Any) -> None:
        self.store, self.asked = store, Counter[str]()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.store, name)

        def ask(*arguments: Any) -> Any:
            self.asked["asked"] += 1
            if name == "multi_get":
                self.asked["statuses"] += len(arguments[0])
            return method(*arguments)

        return ask


def _asked(watchdog: Watchdog) -> dict[str, int]:
    """What the watchdog asks in a period in which every rank is known."""
    store = watchdog._store
    assert store is not None
    watchdog._receive(store)
    counted: Any = _CountedStore(store)
    watchdog._publish(counted)
    watchdog._receive(counted)
    return dict(counted.asked)


def _sockets(port: int | None = None) -> int:
    """Of this process; or of them those that are connected to this port of ours."""
    inodes = set()
    for file in Path("/proc/self/fd").iterdir():
        try:
            name = os.readlink(file)
        except OSError:  # the folder itself
            continue
        if name.startswith("socket:["):
            inodes.add(name[8:-1])
    if port is None:
        return len(inodes)
    connected = [
        fields
        for table_of in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/self/net/{table_of}").read_text().splitlines()[1:])
        if fields[9] in inodes and fields[3] == ESTABLISHED
    ]
    return sum(int(fields[1].rpartition(":")[2], 16) == port for fields in connected)


def main(ranks: str, relayed: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(count(int(ranks), relayed == "1", Path(scratch))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
