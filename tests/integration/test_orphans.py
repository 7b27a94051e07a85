"""A killed rank leaves nobody behind: its tokenising processes end with it."""

from __future__ import annotations

import time

import psutil
from integration import ranks
from integration.tiny import Tiny


def test_the_workers_of_a_killed_rank_end_with_it(tiny: Tiny) -> None:
    told = (f"run.dir={tiny.folder / 'orphans'}", "data.workers=2", "train.steps=100000")
    started = ranks.start(1, tiny.config, *told)
    rank = psutil.Process(started.processes[0].pid)
    metrics = tiny.folder / "orphans" / "metrics.jsonl"
    until = time.monotonic() + 400
    while not (metrics.exists() and "loss" in metrics.read_text()) and time.monotonic() < until:
        time.sleep(0.2)
    family = rank.children(recursive=True)
    assert len(family) >= 3, started.text()  # the forkserver and two workers
    started.kill()
    _, alive = psutil.wait_procs(family, timeout=120)
    assert not alive
