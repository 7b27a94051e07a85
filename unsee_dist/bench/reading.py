"""Sentences that all readers together read for one that is used: blocks are read whole, and each process reads for itself.

Computed from the lanes that each worker of each rank serves and the blocks that each lane needs in an epoch; a test holds this
against reads that are counted.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from rich.table import Table

from unsee_dist.bench.table import BenchRow, table
from unsee_dist.data.corpus.order import Order
from unsee_dist.data.corpus.sizes import BlockSizes
from unsee_dist.data.stream.parts import cut_slice

SENTENCES, BLOCK = 100_000_000, 1024
WORKERS = (2, 4)
LAYOUTS = ((1, 32), (1, 1024), (8, 1024), (64, 1024), (1000, 3000), (1024, 1024), (1024, 65536))


def measure() -> list[BenchRow]:
    """A row for each layout of (ranks, batch) and number of workers, over the first epoch of SENTENCES."""
    rest = SENTENCES % BLOCK
    short = (np.array([SENTENCES // BLOCK]), np.array([BLOCK - rest])) if rest else (np.empty(0), np.empty(0))
    sizes = BlockSizes(-(-SENTENCES // BLOCK), BLOCK, *short)
    return [
        {
            "ranks": ranks,
            "batch": batch,
            "workers": workers,
            "read_per_used": read_per_used(Order.of(sizes, 0, batch), batch, ranks, workers),
        }
        for ranks, batch in LAYOUTS
        for workers in WORKERS
    ]


def read_per_used(order: Order, batch: int, ranks: int, workers: int) -> float:
    """Over the first epoch."""
    needed, edges, own = order.read(0), order.edges(), batch // ranks
    read = 0
    for rank in range(ranks):
        cuts = cut_slice(rank * own, (rank + 1) * own, workers or 1, edges)
        read += sum(int(needed[order.lanes.served(*part)].sum()) for part in pairwise(cuts))
    return read / order.sentences


def page(rows: list[BenchRow]) -> Table:
    names = ("ranks", "batch", "workers")
    shown = table(
        f"sentences read for one used, of a corpus of {SENTENCES:.0e}", (", ".join(names), "read / used")
    )
    for row in rows:
        shown.add_row(", ".join(f"{row[name]:,}" for name in names), f"{row['read_per_used']:.2f}")
    return shown
