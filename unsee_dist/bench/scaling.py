"""Weak scaling on the cores of this host.

    python -m unsee_dist.bench.scaling CONFIG [key=value ...]               on each of R gloo ranks

Eight sentences a rank, a BERT of four layers of 256, fp32, as many threads a rank whatever R. Rank 0 prints one line.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from itertools import pairwise

import torch

from unsee_dist.bench.gpu_step import Case, build, step_of
from unsee_dist.bench.table import BenchRow
from unsee_dist.config import RunConfig, load
from unsee_dist.distributed.process_group import join_world, leave_world
from unsee_dist.distributed.world import World, wait_for_all
from unsee_dist.model.fresh import FreshSize

SENTENCES = 8  # a rank
SMALL = FreshSize(vocabulary=8192, width=256, layers=4, heads=4, max_tokens=128)
WARM_UP, STEPS = 2, 12


def measure(config: RunConfig, size: FreshSize, world: World, steps: int) -> BenchRow:
    """Median of `steps` steps. Every rank waits for the others in each of them, so the time of one is that of all."""
    built = build(Case("scaling"), config, size, world, different=3)
    for number in range(WARM_UP):
        step_of(built, number)
    wait_for_all(world)
    marks = [time.perf_counter()]
    for number in range(steps):
        step_of(built, number)
        marks.append(time.perf_counter())
    step_s = statistics.median(after - before for before, after in pairwise(marks))
    return {
        "ranks": world.size,
        "threads": torch.get_num_threads(),
        "batch": config.train.batch,
        "step_ms": 1000 * step_s,
        "sentences_per_s": config.train.batch / step_s,
    }


def main(config: str, *overrides: str) -> None:
    world = join_world()
    fixed = ("parallel.precision=fp32", f"train.batch={SENTENCES * world.size}", "train.micro_batch=null")
    row = measure(load(config, [*overrides, *fixed]), SMALL, world, STEPS)
    leave_world()
    if world.rank == 0:
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
