"""What rank 0's store holds grows by the law that `unsee bench --only scale` projects from: real sockets of real ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from rich.console import Console

from unsee_dist.bench import store
from unsee_dist.bench.table import BenchRow
from unsee_dist.distributed import sockets


def counted(ranks: int, relayed: int) -> BenchRow:
    command = [sys.executable, "-m", "unsee_dist.bench.store", str(ranks), str(relayed)]
    environment = {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    row: BenchRow = json.loads(done.stdout.splitlines()[-1])
    return row


@pytest.mark.parametrize(
    ("ranks", "relayed"),
    [
        (8, 0),
        pytest.param(16, 0, marks=pytest.mark.slow),
        (16, 1),
        pytest.param(32, 0, marks=pytest.mark.slow),
        pytest.param(32, 1, marks=pytest.mark.slow),
    ],
)
def test_the_sockets_of_rank_0_are_those_of_the_law(ranks: int, relayed: int) -> None:
    row = counted(ranks, relayed)
    assert row["store"] == (3 * ranks // store.A_HOST if relayed else 2 * ranks)
    assert row["rank_0"] == store.sockets_of_rank_0(ranks, bool(relayed))
    assert row["most"] < row["rank_0"]
    assert (row["asked"], row["statuses"]) == (3, ranks - 1)


def test_at_1024_ranks_rank_0_stays_below_1024_and_would_not_without_relays() -> None:
    by_ranks = {row["ranks"]: row for row in store.projection()}
    assert by_ranks[1024]["store"] == 3 * 128
    assert by_ranks[1024]["rank_0"] < 600
    assert by_ranks[sockets.RELAYED]["rank_0"] < 600
    assert store.sockets_of_rank_0(1024, relayed=False) > 2048, "the control"
    console = Console(width=160)
    with console.capture() as shown:
        for page in store.pages([], store.projection()):
            console.print(page)
    assert "1,024" in shown.get()
