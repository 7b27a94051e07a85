"""`unsee bench`: the time of each part of a step, and the speed of whole training, beside others. Tables, and one JSON.

training.py      a step by the case (step.py) and whole training beside other trainers (peers.py)
recovery.py      the pause of a save, and the time from a kill to the first new step
corpus.py        preparing and reading a corpus, beside other readers (corpus_peers.py)
order.py         seeking in the order of four billion sentences
sweep.py         the time that a sweep takes in addition to its trainings
table.py         rows -> tables
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

PARTS = ("training", "recovery", "corpus", "order", "sweep")


def main(
    config: str, overrides: Sequence[str], out: Path, peer_unsee: Path | None, only: Sequence[str] = PARTS
) -> None:
    """Run the parts, print their tables, write `out` (JSON) after each. UserError: a case fails."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 180)
    results: dict[str, object] = {"config": config, "overrides": list(overrides)}
    with tempfile.TemporaryDirectory() as scratch:
        for part in (each for each in PARTS if each in only):
            console.print(f"{part} ...", markup=False)
            results |= _measure(part, config, overrides, Path(scratch), peer_unsee, console)
            out.write_text(json.dumps(results, indent=1), encoding="utf-8")
    console.print(f"written to {out}", markup=False)


def _measure(
    part: str,
    config: str,
    overrides: Sequence[str],
    scratch: Path,
    peer_unsee: Path | None,
    console: Console,
) -> Mapping[str, object]:
    from unsee_dist.bench import corpus, order, recovery, sweep, training
    from unsee_dist.config import load

    if part == "training":
        return training.train(config, overrides, scratch, peer_unsee, console)
    if part == "corpus":
        return corpus.read_and_prepare(load(config, overrides), scratch, console)
    if part == "recovery":
        seconds = recovery.recovery_s(config, overrides, scratch / "killed")
        console.print(recovery.summary(seconds), markup=False)
        return {"recovery_s": seconds}
    if part == "order":
        rows = order.seek_cost()
        console.print(order.summary(rows), markup=False)
        return {"order": rows}
    cost = sweep.sweep_cost(config, overrides, scratch / "sweep")
    console.print(sweep.summary(cost), markup=False)
    return {"sweep": cost}
