"""cluster/ray-local: two real raylets, reached with the token only, side by side with a second cluster, gone after stop."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from cluster.raylets import SCRIPTS, Raylets, raylets
from integration import tiny

# Where two tasks that need a processor each ran, and how many nodes there are.
PROBE = """
import time
import ray
ray.init(log_to_driver=False)
@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def where():
    time.sleep(1)
    return ray.get_runtime_context().get_node_id()
alive = [node for node in ray.nodes() if node["Alive"]]
print("alive", len(alive), "ran on", len(set(ray.get([where.remote() for _ in alive]))))
"""


def start_probe(cluster: Raylets, **more: str) -> subprocess.Popen[str]:
    return tiny.start([sys.executable, "-c", PROBE], env=cluster.env | more)


def probe(cluster: Raylets) -> str:
    done = tiny.finish(start_probe(cluster), 240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_raylets_reached_with_the_token_only() -> None:
    with raylets(2) as cluster, raylets(1) as other:
        assert "alive 2 ran on 2" in probe(cluster)
        assert "alive 1 ran on 1" in probe(other)
        assert (cluster.folder / "token").stat().st_mode & 0o077 == 0
        assert (cluster.folder / "ray").stat().st_mode & 0o077 == 0
        wrong = [{"RAY_AUTH_TOKEN_PATH": str(other.folder / "token")}, {"RAY_AUTH_MODE": "disabled"}]
        for refused in [start_probe(cluster, **settings) for settings in wrong]:
            assert "Failed to connect to Ray cluster" in tiny.finish(refused, 240).stderr
        cluster.kill_node(2)
        until = time.monotonic() + 240  # the head notices by heartbeats that do not come
        while "alive 1 ran on 1" not in (printed := probe(cluster)):
            assert time.monotonic() < until, printed
        assert cluster.processes()
    assert not cluster.processes()
    assert not other.processes()
    assert not cluster.folder.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["/tmp/raylets-none", "0"], "N = 0 is not a number of nodes"),
        (["/tmp/" + 40 * "a"], "must stay within 107"),
    ],
)
def test_start_says_what_is_wrong(arguments: list[str], sentence: str) -> None:
    done = tiny.run([str(SCRIPTS / "start.sh"), *arguments])
    assert done.returncode == 2
    assert sentence in done.stderr


def test_stop_without_a_cluster() -> None:
    done = tiny.run([str(SCRIPTS / "stop.sh"), "/tmp/raylets-none"])
    assert done.returncode == 2
    assert "made no cluster in /tmp/raylets-none" in done.stderr
