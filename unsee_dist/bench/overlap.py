"""What a step of many ranks would gain, were gradients sent while the backward still computes. A projection, no measurement.

    c = the time that the gradients take on the network          B = the time of the backward, half of the computation
    k buckets of equal size, the i-th of which is whole when i / k of the backward is over; m micro_batches

    not hidden = max(c / k,  c - (B / m)(1 - 1 / k))              each bucket is a collective

A weight's gradient is whole when its last use has been differentiated. All micro_batches of a step are one graph, so that is in
the part of the backward that comes last, 1 / m of it, whatever is recomputed before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from unsee_dist.bench.scale import (
    BANDWIDTH,
    COMPUTATION_S,
    LATENCY_S,
    ModelSize,
    base_size,
    sent,
)
from unsee_dist.bench.table import BenchRow, table

BACKWARD = 0.5  # of the computation: online and target forward are a unit each, the backward two
BUCKETS = 4


def exposed_s(sending_s: float, backward_s: float, buckets: int, micro_batches: int = 1) -> float:
    """Seconds of the sending that are left after the backward."""
    hidden_behind = backward_s / micro_batches * (1 - 1 / buckets)
    return max(sending_s / buckets, sending_s - hidden_behind)


def gradients_s(size: ModelSize, ranks: int) -> float:
    """Seconds that the sum of the fp32 gradients takes."""
    return 2 * 4.0 * size.weights * (ranks - 1) / ranks / BANDWIDTH


def projection(ranks: Sequence[int], objective: str = "vicreg", collectives: int = 8) -> list[BenchRow]:
    """At BERT-base's size and stage 1: a step in ms as it is, with BUCKETS buckets, and with those in 4 micro_batches."""
    size = base_size(objective)
    rows = []
    for count in ranks:
        hop_s = LATENCY_S * math.ceil(math.log2(count))
        now_s = COMPUTATION_S + collectives * hop_s + sent(objective, count, 1, size) / BANDWIDTH
        sending_s = gradients_s(size, count)
        more_s = (BUCKETS - 1) * hop_s - sending_s
        whole, cut = (exposed_s(sending_s, BACKWARD * COMPUTATION_S, BUCKETS, cuts) for cuts in (1, 4))
        rows.append(
            {
                "ranks": count,
                "ms": 1000 * now_s,
                "overlapped_ms": 1000 * (now_s + more_s + whole),
                "overlapped_cut_ms": 1000 * (now_s + more_s + cut),
            }
        )
    return rows


def page(rows: Sequence[BenchRow]) -> Table:
    title = f"VICReg, ZeRO-1, gradients in {BUCKETS} buckets beside the backward, projected: ms a step"
    shown = table(title, ("ranks", "now", "overlapped", "overlapped, 4 micro_batches"))
    for row in rows:
        shown.add_row(
            f"{row['ranks']:,}",
            *(f"{row[name]:.0f}" for name in ("ms", "overlapped_ms", "overlapped_cut_ms")),
        )
    return shown
