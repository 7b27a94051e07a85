"""How many sockets rank 0 has, and how many files a rank may have open.

    rank 0's store      2 connections from each rank: torch's and the watchdog's; beyond RELAYED ranks 3 from each host (relay.py)
    a group of gloo     neighbours in a ring, a tree, and the ranks at powers of two: some 3 log2(R)

`unsee bench --only scale` counts them (bench/store.py).
"""

from __future__ import annotations

import resource
from collections.abc import Mapping

from unsee_dist.errors import UserError

RELAYED = 256  # ranks; of more, those of a host share their connections to rank 0
OF_A_RANK, OF_A_HOST = 2, 3
OTHERS = 256  # files that a rank has open beside the store's: devices, libraries, groups, shards
MOST = 1 << 16  # some programs go through all that may be open
USUAL = 8  # ranks on a host, where the launcher does not tell


def is_relayed(environment: Mapping[str, str], size: int) -> bool:
    """Whether the first rank of each host asks rank 0's store for the others of its host."""
    return size > RELAYED and _a_host(environment) > 1 and "LOCAL_RANK" in environment


def asks_by_relay(environment: Mapping[str, str], size: int) -> bool:
    """Whether this rank reaches rank 0's store by way of the first rank of its host."""
    return is_relayed(environment, size) and environment["LOCAL_RANK"] != "0"


def store_connections(ranks: int, a_host: int) -> int:
    """That rank 0's store holds, of so many ranks with `a_host` on each host."""
    hosts = -(-ranks // a_host)
    return OF_A_HOST * hosts if ranks > RELAYED and a_host > 1 else OF_A_RANK * ranks


def open_files(environment: Mapping[str, str], rank: int, size: int) -> None:
    """Allow this process as many open files as it may allow itself. UserError: rank 0's store needs more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    needed = store_connections(size, _a_host(environment)) + OTHERS
    served_here = rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if served_here and needed > max(soft, most):
        raise UserError(
            f"WORLD_SIZE = {size}: rank 0 needs {needed} open files for that many ranks, and this host allows {most}. Raise the "
            "hard limit there (`ulimit -Hn`, LimitNOFILE of slurmd), or start more ranks on each host."
        )


def _a_host(environment: Mapping[str, str]) -> int:
    return int(environment.get("LOCAL_WORLD_SIZE", USUAL))
