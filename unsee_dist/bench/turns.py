"""Steps of several runs by turns in one process: what slows the machine for a while slows all of them alike."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import quantile_test

from unsee_dist.bench.launch import in_processes
from unsee_dist.bench.table import BenchRow
from unsee_dist.data import Batch
from unsee_dist.training.loop import Training, run_step

BATCHES = (32, 256)
PRECISIONS = ("fp32", None)  # None: the configuration's own


def rows_of(module: str, config: str, overrides: Sequence[str], scratch: Path) -> list[BenchRow]:
    """What `python -m MODULE` prints, a row a batch and precision."""
    rows = []
    for batch, precision in itertools.product(BATCHES, PRECISIONS):
        changed = [f"train.batch={batch}", "train.micro_batch=null", f"run.dir={scratch}/{batch}-{precision}"]
        changed += [] if precision is None else [f"parallel.precision={precision}"]
        rows.append(in_processes(module, [config, *overrides, *changed, "track.mlflow=false"], 1))
    return rows


def shown(ratio: Sequence[float]) -> str:
    middle, low, high = ratio
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def turn_s(runs: Sequence[Training], batches: Sequence[Batch], turn: int) -> list[float]:
    """Seconds of a step of each run, in each order once before one comes again: a step after another kind may be slower."""
    seconds, orders = [0.0] * len(runs), list(itertools.permutations(range(len(runs))))
    for place in orders[turn % len(orders)]:
        started = time.perf_counter()
        run_step(runs[place], batches[place])
        if runs[place].engine.world.device.type == "cuda":
            torch.cuda.synchronize()
        seconds[place] = time.perf_counter() - started
    return seconds


def median(ratios: np.ndarray) -> list[float]:
    """The median and the ends of its 95% interval, by order statistics."""
    interval = quantile_test(ratios, p=0.5).confidence_interval(0.95)
    return [float(np.median(ratios)), float(interval.low), float(interval.high)]
