"""What masks by sentence cost: the same steps under three kinds of dropout by turns, in one process.

    by sentence   masks.py: what a run does
    drawn         as many random bits as a mask needs from one fast generator: the least that any dropout does, no law holds
    torch's       torch.nn.Dropout and torch's own attention, seeded a micro-batch at a time

    ratio = median over steps of (time by sentence / time of the other kind)

A machine that is shared slows the steps of one turn alike, but not always evenly: the interval is of the median, 95%, by the
ranks of the turns' ratios, whatever their distribution.
`python -m unsee_dist.bench.masks CONFIG [key=value ...]`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import Tensor
from transformers import PreTrainedModel

from unsee_dist.bench.table import BenchRow, table
from unsee_dist.bench.turns import median, rows_of, shown, turn_s
from unsee_dist.config import load
from unsee_dist.distributed.process_group import join_world, leave_world
from unsee_dist.model import masks
from unsee_dist.model.dropout import masks_of, remove
from unsee_dist.run import build
from unsee_dist.training.loop import Training

KINDS = ("by sentence", "drawn", "torch's")
WARM_UP, SENTENCES = 3, 7680  # trained on by each kind, after the steps of warming up


def cost(config: str, overrides: Sequence[str], scratch: Path) -> list[BenchRow]:
    """A row a batch and precision: milliseconds of a step of each kind, the median of the ratios and its interval."""
    return rows_of("unsee_dist.bench.masks", config, overrides, scratch)


def page(rows: Sequence[BenchRow]) -> Table:
    columns = [f"{kind} ms" for kind in KINDS] + [f"ratio to {kind}" for kind in KINDS[1:]]
    costs = table(
        "a step by its dropout (ratio: median, 95% interval)", ("batch, precision", *columns, "turns")
    )
    for row in rows:
        costs.add_row(
            f"{row['batch']}, {row['precision']}",
            *(f"{row['ms'][kind]:.1f}" for kind in KINDS),
            *(shown(row["ratio"][kind]) for kind in KINDS[1:]),
            str(row["turns"]),
        )
    return costs


def measure(config: str, overrides: Sequence[str]) -> BenchRow:
    """The row of this configuration."""
    settings = load(config, overrides)
    world = join_world()
    turns = max(12, SENTENCES // settings.train.batch)
    runs = [
        build(load(config, [*overrides, f"run.dir={settings.run.dir}-{place}"]), world)
        for place in range(len(KINDS))
    ]
    for encoder in encoders(runs[1]):
        draw(encoder)
    for encoder in encoders(runs[2]):
        remove(encoder)
    streams = [run.stream.batches(1, WARM_UP + turns) for run in runs]
    seconds = [turn_s(runs, [next(stream) for stream in streams], turn) for turn in range(WARM_UP + turns)]
    for run in runs:
        run.recorder.close()
    leave_world()
    ours, *others = np.array(seconds[WARM_UP:]).T
    return {
        "batch": settings.train.batch,
        "precision": runs[0].engine.precision,
        "turns": turns,
        "ms": {
            kind: 1000 * float(np.median(times)) for kind, times in zip(KINDS, (ours, *others), strict=True)
        },
        "ratio": {kind: median(ours / times) for kind, times in zip(KINDS[1:], others, strict=True)},
    }


def encoders(run: Training) -> list[PreTrainedModel]:
    model = run.engine.module
    return [model.online] if model.target is None else [model.online, model.target]


def draw(encoder: PreTrainedModel) -> None:
    """Masks of an encoder are drawn, whatever the sentences are."""
    own = masks_of(encoder)
    assert own is not None
    generator = np.random.SFC64(0)

    def drop(x: Tensor, p: float, _site: int) -> Tensor:
        if p == 0:
            return x
        words = generator.random_raw(-(-x.numel() // masks.LANES)).view(np.int16)
        return x * masks.multiplier(torch.from_numpy(words[: x.numel()]).view(x.shape), p, x.dtype)

    @contextmanager
    def of(*_: object) -> Iterator[None]:
        yield

    own.__dict__.update(drop=drop, of=of)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2:])), flush=True)
