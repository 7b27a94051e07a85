"""`unsee bench --only gpu`: the training step on one GPU at BERT-base's size, beside sentence-transformers.

It takes under five minutes, and needs nothing but the package and a GPU: random weights, random sentences, no network.

    gpu_step.py      the cases of the step: one process, so that python starts once. A case that ends its process
                     becomes a row that says so, and another process takes the cases after it
    gpu_peer.py      sentence-transformers' SimCSE on the same token ids
    scaling.py       1 to 8 gloo ranks on the cores, where there are at least 8
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from importlib.util import find_spec
from typing import Any

import torch
from rich.console import Console

from unsee_dist.bench import gpu_table, synthetic
from unsee_dist.bench.gpu_peer import NAME
from unsee_dist.bench.gpu_step import CASES
from unsee_dist.bench.launch import ProcessFailed, in_processes, rows
from unsee_dist.bench.table import BenchRow
from unsee_dist.errors import UserError

STEP, PEER, SCALING = (f"unsee_dist.bench.{name}" for name in ("gpu_step", "gpu_peer", "scaling"))
MINUTES = 4.0  # after which no new case is begun
CASE_S = 120.0  # the longest a case may take, python's start included
FRUITLESS = 2  # processes in a row that gave no row: the fault is not the case's
PEER_BATCHES = (1024, 32)
RANKS = (1, 2, 4, 8)
CORES = 8  # from here on scaling is measured


class BenchDeadline:
    """The end of the bench: what has not begun by then is left out, with a row that says so."""

    def __init__(self, minutes: float) -> None:
        self._ends = time.monotonic() + 60 * minutes

    def passed(self) -> bool:
        return time.monotonic() > self._ends


def check_gpu() -> None:
    """UserError: there is no GPU."""
    if not torch.cuda.is_available():
        raise UserError(
            f"--only gpu needs a GPU, and torch {torch.__version__} sees none here (see `unsee doctor`). "
            "Run it on a machine with one, or leave out --only gpu."
        )


def measure(config: str, overrides: Sequence[str], console: Console) -> Iterator[BenchRow]:
    """The results so far, after each case; the tables are printed last. A case without numbers has the reason in
    `error`, and in `stderr` where its process ended with an error."""
    deadline, arguments = BenchDeadline(MINUTES), [config, *overrides]
    result: BenchRow = {"lengths": synthetic.LENGTHS, "rows": [], "peers": [], "scaling": []}
    for row in step_rows([case.label for case in CASES], arguments, deadline, console):
        if "machine" in row:
            result |= row
            continue
        result["rows"].append(row)
        console.print(f"  {gpu_table.line(row)}", markup=False)
        yield result
    for row in peer_rows(arguments, deadline, console):
        result["peers"].append(row)
        console.print(f"  {gpu_table.line(row)}", markup=False)
        yield result
    for row in scaling_rows(arguments, deadline, console):
        result["scaling"].append(row)
        yield result
    for page in gpu_table.pages(result):
        console.print(page)


def crashed(result: Mapping[str, Any]) -> list[str]:
    """Cases whose process ended with an error."""
    return [row["case"] for name in ("rows", "peers", "scaling") for row in result[name] if "stderr" in row]


def step_rows(
    labels: Sequence[str],
    arguments: Sequence[str],
    deadline: BenchDeadline,
    console: Console,
    start: Callable[..., Generator[BenchRow]] = rows,
) -> Iterator[BenchRow]:
    """A row for every label, and the machine's before them. start: how the rows of a process are had."""
    remaining, fruitless = list(labels), 0
    while remaining and not deadline.passed() and fruitless < FRUITLESS:
        fruitless += 1
        console.print(f"{remaining[0]} ...", markup=False)
        try:
            with closing(start(STEP, [json.dumps(remaining), *arguments], 1, limit_s=CASE_S)) as printed:
                for row in printed:
                    yield row
                    if "case" not in row:
                        continue
                    del remaining[0]
                    fruitless = 0
                    if deadline.passed():
                        break
                    if remaining:
                        console.print(f"{remaining[0]} ...", markup=False)
        except ProcessFailed as error:
            label = remaining.pop(0) if remaining else "the end of the process"
            yield {"case": label, "error": _ended(error), "stderr": error.stderr}
    why = "the time was over" if fruitless < FRUITLESS else "the processes before it failed"
    yield from ({"case": label, "error": f"left out: {why}"} for label in remaining)


def _ended(error: ProcessFailed) -> str:
    return f"its process failed: {error.why}"


def peer_rows(arguments: Sequence[str], deadline: BenchDeadline, console: Console) -> Iterator[BenchRow]:
    """sentence-transformers' rows, where it is installed."""
    if find_spec("sentence_transformers") is None:
        console.print("sentence-transformers is not installed: left out", markup=False)
    elif deadline.passed():
        yield {"case": NAME, "error": "left out: the time was over"}
    else:
        console.print(f"{NAME} ...", markup=False)
        try:
            yield from rows(PEER, [json.dumps(PEER_BATCHES), *arguments], 1, limit_s=CASE_S)
        except ProcessFailed as error:
            yield {"case": NAME, "error": _ended(error), "stderr": error.stderr}


def scaling_rows(arguments: Sequence[str], deadline: BenchDeadline, console: Console) -> Iterator[BenchRow]:
    """Weak scaling of gloo ranks, where there are cores enough. efficiency: of R ranks against R times one rank."""
    cores = len(os.sched_getaffinity(0))
    if cores < CORES:
        console.print(
            f"weak scaling of gloo ranks wants {CORES} cores, here are {cores}: left out", markup=False
        )
        return
    # threads: as many a rank whatever the ranks, else one rank alone would have all cores. lo: a machine without a
    # network may have no other interface
    more = {
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": str(cores // max(RANKS)),
    }
    alone: float | None = None
    for ranks in RANKS:
        row: BenchRow = {"case": f"{ranks} gloo ranks"}
        if deadline.passed():
            yield row | {"error": "left out: the time was over"}
            continue
        console.print(f"{row['case']} ...", markup=False)
        try:
            row |= in_processes(SCALING, arguments, ranks, environment=more, limit_s=CASE_S)
        except ProcessFailed as error:
            yield row | {"error": _ended(error), "stderr": error.stderr}
            continue
        alone = row["sentences_per_s"] if ranks == 1 else alone
        yield row | ({} if alone is None else {"efficiency": row["sentences_per_s"] / (ranks * alone)})
