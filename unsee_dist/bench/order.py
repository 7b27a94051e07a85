"""The order of a corpus of four billion sentences, by its index alone: time of a seek, and memory."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np

from unsee_dist.data.corpus.order import Order
from unsee_dist.data.corpus.sizes import BlockSizes

SENTENCES, BLOCK = 4_000_000_000, 1024
POSITIONS = (0, 3_123_456_789, 11_999_999_000)  # the start, within, and two epochs on


def seek_cost() -> list[dict[str, float]]:
    """A row a position: seconds from nothing to the ids of a batch of 1,024 there (of processor time), and peak MiB."""
    rows = []
    for position in POSITIONS:
        started = time.process_time()
        _seek(position)
        seconds = time.process_time() - started
        tracemalloc.start()  # in a second run: tracemalloc slows down the code
        _seek(position)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        rows.append({"position": position, "seek_s": seconds, "peak_mib": peak / 2**20})
    return rows


def summary(rows: list[dict[str, float]]) -> str:
    seeks = ", ".join(f"{row['seek_s']:.2f} s at {row['position']:,.0f}" for row in rows)
    return f"order of {SENTENCES:.0e} sentences: cold seek {seeks}; {max(row['peak_mib'] for row in rows):.0f} MiB"


def _seek(position: int) -> np.ndarray:
    none = np.empty(0, dtype=np.int64)
    order = Order.of(BlockSizes(SENTENCES // BLOCK, BLOCK, short=none, missing=none), 7, BLOCK)
    return order.ids(np.arange(position, position + BLOCK))
