"""Ray: the same results as without it, whatever dies on the way; and sentences for what is wrong."""

import errno
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
from cluster.raylets import LOOPBACK, listening, raylets
from integration import tiny

from cluster import squares
from unsee_dist.errors import ExitCode, TransientError, UserError, exit_code_of
from unsee_dist.ray_pool import cluster, tasks
from unsee_dist.ray_pool.cluster import Node, connected, nodes, shortage, slots
from unsee_dist.ray_pool.tasks import map_unordered


@pytest.mark.slow
def test_every_item_is_done_once_though_a_worker_and_then_a_machine_dies(tmp_path: Path) -> None:
    with raylets() as cluster:
        running = tiny.start([sys.executable, squares.__file__, str(tmp_path)], env=cluster.env)
        assert running.stdout is not None
        some = any(
            line == "some\n" for line in running.stdout
        )  # behind lines of ray's about the killed worker
        cluster.kill_node(2)
        (tmp_path / "go").touch()
        ended = tiny.finish(running, 300)
    assert some, ended.stderr
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    assert (tmp_path / "killed").exists()
    assert result["squares"] == [n**2 for n in range(squares.NUMBERS)]
    assert result["nodes"] == result["slots"] == result["nodes that worked"] == 2
    assert result["packages"] == [str(tiny.REPOSITORY / "unsee_dist" / "__init__.py")]
    assert result["most waiting"] <= squares.AT_MOST  # items are taken as they are needed
    assert "in square" in result["bug"]  # the worker's own lines
    assert "KeyError: 'planted'" in result["bug"]
    assert result["refusals"][0] == "number = -3 is negative. Use 0 or more."
    assert result["refusals"][1].startswith("a task needs 2 CPUs on one node, and the largest has 1.")


@pytest.mark.slow
def test_a_wrong_token_is_said(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("b" * 64)
    with raylets(1) as cluster:
        env = cluster.env | {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
        refused = tiny.run([sys.executable, squares.__file__, str(tmp_path)], env=env)
    assert "does not take this process's token. Give it the cluster's: RAY_AUTH_TOKEN_PATH=" in refused.stderr


def test_where_nothing_listens_is_said_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(UserError, match=f"no Ray cluster answers at {address}.*ray start --head"):
            next(_open(address))


@pytest.mark.parametrize("patience_s", [1.0, pytest.param(cluster.ANSWER_S, marks=pytest.mark.slow)])
def test_what_does_not_answer_is_a_passing_fault_in_bounded_time(
    patience_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours, and the shorter one of Ray, which then ends with an error of its own."""
    monkeypatch.setattr("unsee_dist.ray_pool.cluster.ANSWER_S", patience_s)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TransientError, match="did not answer as a Ray cluster"):
            next(_open(address))


@pytest.mark.slow
def test_a_cluster_of_this_machine_listens_to_this_machine_only() -> None:
    """Whoever reaches its ports can run code as this user."""
    with connected("local"):
        (node,) = nodes()
        assert node.cpus
        assert dict(map_unordered(lambda number: -number, [-1, -2])) == {0: 1, 1: 2}
        addresses = listening([psutil.Process(), *psutil.Process().children(recursive=True)])
    assert addresses
    assert addresses <= LOOPBACK
    assert cluster.ray_constants.ENABLE_RAY_CLUSTER  # as it was: another cluster may be on the network


@pytest.mark.parametrize("address", ["no host:6379", "a..b:6379"])
def test_a_host_that_cannot_be_is_a_mistake(address: str) -> None:
    with pytest.raises(UserError, match=f"no Ray cluster answers at {address}"):
        next(_open(address))


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError("timed out"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    ],
)
def test_a_head_that_does_not_answer_is_a_passing_fault(
    error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_answer(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "create_connection", no_answer)
    with pytest.raises(TransientError, match="no Ray cluster answers at head:6379") as met:
        next(_open("head:6379"))
    assert exit_code_of(met.value) is ExitCode.TRANSIENT


@pytest.mark.parametrize("address", ["head", "ray://head:10001", "head:port"])
def test_an_address_that_is_none_is_said(address: str) -> None:
    with pytest.raises(ValueError, match=r"is not an address of a Ray cluster\. Write host:port"):
        next(_open(address))


def _open(address: str) -> Iterator[None]:
    with connected(address):
        yield


def test_the_shortage_for_a_demand() -> None:
    there = [Node("a", 4, 0), Node("b", 2, 1)]
    assert shortage(there, 4) is None
    assert shortage(there, 1, times=6) is None
    assert shortage(there, 2, 1) is None
    assert shortage([], 1) == "needs 1 CPUs on one node, and the largest has 0"
    assert shortage(there, 8) == "needs 8 CPUs on one node, and the largest has 4"
    assert shortage(there, 1, 2) == "needs 2 GPUs on one node, and the largest has 1"
    assert shortage(there, 3, 1) == "needs 3 CPUs and 1 GPUs on one node, and no node has both"
    assert shortage(there, 2, times=4) == "needs 4 times 2 CPUs at once, and 2 nodes have them 3 times"
    assert slots(there, 0.5) == 12


@pytest.mark.parametrize(
    ("error", "memory"),
    [(ray.exceptions.WorkerCrashedError(), False), (ray.exceptions.OutOfMemoryError("o"), True)],
)
def test_memory_is_blamed_only_where_ray_says_so(
    error: Exception, memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(_: object) -> None:
        raise error

    monkeypatch.setattr(tasks.ray, "wait", lambda waiting, **_: (waiting, []))
    monkeypatch.setattr(tasks.ray, "get", get)
    with pytest.raises(ChildProcessError) as met:
        tasks._next({"task": 3})
    assert ("memory" in str(met.value).partition("attempts (")[2].partition("). ")[2]) is memory
