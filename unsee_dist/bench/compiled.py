"""What parallel.compile gives: the same steps eager and compiled by turns, in one process.

    ratio = median over steps of (time compiled / time eager)

Steps in which something was compiled are left out, and their seconds given. Compiled rows are more, for padding; so the
time of a sentence is compared, not that of a row. `python -m unsee_dist.bench.compiled CONFIG [key=value ...]`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from unsee_dist.bench.table import BenchRow, table
from unsee_dist.bench.turns import median, rows_of, shown, turn_s
from unsee_dist.config import load
from unsee_dist.data import Batch
from unsee_dist.distributed.process_group import join_world, leave_world
from unsee_dist.run import build

WARM_UP, SENTENCES = 3, 3840  # trained on by each kind, after the steps of warming up


def cost(config: str, overrides: Sequence[str], scratch: Path) -> list[BenchRow]:
    """A row a batch and precision."""
    return rows_of("unsee_dist.bench.compiled", config, overrides, scratch)


def page(rows: Sequence[BenchRow]) -> Table:
    columns = (
        "eager ms",
        "compiled ms",
        "ratio",
        "rows of padding",
        "graphs",
        "again",
        "compiled in s",
        "steps",
    )
    seen = table("a step eager and compiled (ratio: median, 95% interval)", ("batch, precision", *columns))
    for row in rows:
        seen.add_row(
            f"{row['batch']}, {row['precision']}",
            f"{row['eager_ms']:.1f}",
            f"{row['compiled_ms']:.1f}",
            shown(row["ratio"]),
            f"{row['more_rows']:.0%}",
            str(row["graphs"]),
            str(row["repeated"]),
            f"{row['compile_s']:.0f}",
            str(row["steps"]),
        )
    return seen


def measure(config: str, overrides: Sequence[str]) -> BenchRow:
    """The row of this configuration."""
    settings = load(config, overrides)
    world = join_world()
    steps = max(12, SENTENCES // settings.train.batch)
    runs = [
        build(load(config, [*overrides, f"run.dir={settings.run.dir}-{on}", f"parallel.compile={on}"]), world)
        for on in ("false", "true")
    ]
    compilations = runs[1].compilations
    assert compilations is not None
    seconds, sizes = [], []
    for turn, batches in enumerate(
        zip(*(run.stream.batches(1, WARM_UP + steps) for run in runs), strict=True)
    ):
        times = turn_s(runs, batches, turn)
        if not compilations.news() and turn >= WARM_UP:
            seconds.append(times)
            sizes.append([_rows(batch) for batch in batches])
    for run in runs:
        run.recorder.close()
    leave_world()
    (eager, compiled), (rows, padded) = np.array(seconds).T, np.array(sizes).sum(0)
    return {
        "batch": settings.train.batch,
        "precision": runs[0].engine.precision,
        "steps": len(seconds),
        "eager_ms": 1000 * float(np.median(eager)),
        "compiled_ms": 1000 * float(np.median(compiled)),
        "ratio": median(compiled / eager),
        "more_rows": float(padded / rows - 1),
        "graphs": len(compilations.made),
        "repeated": compilations.repeated,
        "compile_s": compilations.seconds,
    }


def _rows(batch: Batch) -> int:
    return sum(len(micro_batch.input_ids) for micro_batch in batch.micro_batches)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2:])), flush=True)
