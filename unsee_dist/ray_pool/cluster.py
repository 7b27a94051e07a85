"""Cluster: connect to a Ray cluster that runs, or start one on this machine.

    with connected("10.0.0.1:6379"):        # or RAY_ADDRESS; without either, a cluster of this machine's cores
        nodes()                             # its machines
        for index, result in map_unordered(function, items): ...

Workers import the same unsee_dist as this process: its folder is first on their PYTHONPATH, so nodes share a file
system, as those of a training job do.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray._private import ray_constants
from ray.exceptions import RayError

import unsee_dist
from unsee_dist.errors import TransientError, UserError, is_transient

LOCAL = "local"
CONNECT_S = 10.0  # for a connection to open
ANSWER_S = 90.0  # for the cluster to answer: a loaded machine needs 7 s to import ray


class Node(NamedTuple):
    """A machine of the cluster, by what was declared of it."""

    name: str
    cpus: float
    gpus: float


@contextmanager
def connected(address: str | None = None, worker_output: bool = False) -> Iterator[None]:
    """A connection to the cluster at address (host:port), else at RAY_ADDRESS, else to one started for this block.

    "local" starts one whatever RAY_ADDRESS says. Inside a connection that is open already, that one is used.
    worker_output: show here what the workers print. Raises UserError when no cluster is there, or it is
    not for this process; TransientError when one does not answer.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or LOCAL
    if address != LOCAL:
        _check(address)
    # Ray's own lines about addresses and dashboards are for people who asked for ray.
    settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": worker_output}
    settings |= {"runtime_env": {"env_vars": {"PYTHONPATH": _import_path()}}}
    if address == LOCAL:
        settings |= {"num_cpus": len(os.sched_getaffinity(0)), "include_dashboard": False}
    try:
        with _on_loopback() if address == LOCAL else nullcontext():
            ray.init(address=address, **settings)
    except (OSError, RuntimeError, RayError) as error:
        ray.shutdown()
        reason = str(error).partition("\n")[0]
        why = (
            "could not be started on this machine"
            if address == LOCAL
            else f"at {address} refused this process"
        )
        kind = TransientError if is_transient(error) else UserError
        raise kind(f"the Ray cluster {why} ({reason}). {_remedy(address)}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A cluster that starts in this block listens at 127.0.0.1: whoever reaches its ports can run code here.

    Ray has no setting of `init` for it, and reads RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 once, when it is imported.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def nodes() -> list[Node]:
    """The machines of the connected cluster that are alive."""
    alive = (node for node in ray.nodes() if node["Alive"])
    resources = ((node["NodeManagerHostname"], node["Resources"]) for node in alive)
    return [Node(name, has.get("CPU", 0.0), has.get("GPU", 0.0)) for name, has in resources]


def shortage(cluster: list[Node], cpus: float, gpus: float = 0, times: int = 1) -> str | None:
    """What these nodes lack to run `times` pieces of work at once, each on one node with so many CPUs and GPUs.

    None when they have it; else a clause such as "needs 4 CPUs on one node, and the largest has 2".
    """
    for name, each, most in (
        ("CPUs", cpus, max((node.cpus for node in cluster), default=0)),
        ("GPUs", gpus, max((node.gpus for node in cluster), default=0)),
    ):
        if each > most:
            return f"needs {each:g} {name} on one node, and the largest has {most:g}"
    fit = slots(cluster, cpus, gpus)
    if not fit:
        return f"needs {cpus:g} CPUs and {gpus:g} GPUs on one node, and no node has both"
    if fit < times:
        each_of = f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        return f"needs {times} times {each_of} at once, and {len(cluster)} nodes have them {fit} times"
    return None


def slots(cluster: list[Node], cpus: float, gpus: float = 0) -> int:
    """How many pieces of work with so many CPUs (more than 0) and GPUs these nodes run at once."""
    assert cpus > 0
    return sum(int(min(node.cpus / cpus, node.gpus / gpus if gpus else node.cpus / cpus)) for node in cluster)


def _check(address: str) -> None:
    """UserError or TransientError unless a cluster answers at the address within a bounded time.

    The address is a mistake where it is none, its host unknown, or that host says that nothing listens there. A host or
    a cluster that does not answer may do so later.
    ray.init itself gave up after 13 minutes where nothing listened: so another process asks first.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in address:
        raise UserError(
            f"{address} is not an address of a Ray cluster. Write host:port of its head, as `ray start --head` prints "
            "it, and run this on a machine of the cluster."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host, such as "a..b"
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        passes = is_transient(error) and not isinstance(error, ConnectionRefusedError)
        raise (TransientError if passes else UserError)(
            f"no Ray cluster answers at {address} ({reason}). {_remedy(address)}"
        ) from error
    question = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    silent = f"what listens at {address} did not answer as a Ray cluster. {_remedy(address)}"
    try:
        answer = subprocess.run(question, capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise TransientError(silent) from error
    if answer.returncode:
        lines = (answer.stderr.strip() or answer.stdout.strip()).splitlines()
        if any("InvalidAuthToken" in line or "authentication token" in line.lower() for line in lines):
            raise UserError(
                f"the Ray cluster at {address} does not take this process's token. Give it the cluster's: "
                "RAY_AUTH_TOKEN_PATH=FILE, a file that `ray get-auth-token` wrote on the head."
            )
        why = lines[-1] if lines else f"exit code {answer.returncode}"
        if why.startswith("ray.exceptions.RpcError"):  # Ray's own patience, of about 40 s, has ended
            raise TransientError(silent)
        raise UserError(f"the Ray cluster at {address} cannot be used ({why}). {_remedy(address)}")


def _import_path() -> str:
    """PYTHONPATH of the workers: first the folder that holds this unsee_dist."""
    assert unsee_dist.__file__ is not None
    ours = str(Path(unsee_dist.__file__).resolve().parent.parent)
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([ours, *(path for path in given if path and path != ours)])


def _remedy(address: str) -> str:
    if address == LOCAL:
        return "Ray's own log is in /tmp/ray/session_latest/logs."
    return (
        "Start one with `ray start --head --port=6379`, and `ray start --address=HEAD:6379` on the other machines; "
        "or leave the address and RAY_ADDRESS out to use this machine alone."
    )
