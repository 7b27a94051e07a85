"""`unsee bench`: the time of each part of a step, and the speed of whole training, beside others. Tables, and one JSON.

training.py      a step by the case (step.py) and whole training beside other trainers (peers.py,
                  sentence_trainer.py)
masks.py         the cost of masks by sentence, beside torch's dropout
compiled.py      steps eager and compiled by turns, and what compiling takes
turns.py         steps of several runs by turns
hooks.py         what deepspeed adds to a step of plain torch
recovery.py      the pause of a save, and the time from a kill to the first new step
corpus.py        preparing and reading a corpus, beside other readers (corpus_peers.py)
order.py         seeking in the order of four billion sentences
index.py         memory and opening of the index of ten billion sentences
sweep.py         the time that a sweep takes in addition to its trainings
reading.py       sentences that ranks and workers read for one that is used
scale.py         what a step sends, waits for and launches on 1 to 1,024 pretended ranks (pretended/)
overlap.py       what a step would gain from gradients that are sent during the backward, projected (a part of scale)
store.py         the sockets of rank 0's store, the watchdog and the groups of checkpoints (a part of scale)
gpu.py           the training step on one GPU at BERT-base's size, beside sentence-transformers
table.py         rows -> tables
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from unsee_dist.errors import UserError, writing
from unsee_dist.files.atomic import write_file
from unsee_dist.files.remote import check_here, check_local
from unsee_dist.files.room import try_file

PARTS = ("training", "masks", "compile", "recovery", "corpus", "order", "index", "sweep", "scale", "gpu")
WITHOUT_CORPUS = {"order", "index", "scale", "gpu"}  # they make what they measure
INCLUDED = {
    "scale": ("index",)
}  # what is asked for with a part: scale's JSON has the index of ten billion sentences


def main(
    config: str,
    overrides: Sequence[str],
    out: Path,
    peer_unsee: Path | None,
    only: Sequence[str] | None = None,
) -> None:
    """Run the parts (None = all that this machine can), print their tables, write `out` (JSON) after each. UserError: a
    case fails, or "gpu" is asked for where there is none."""
    console = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 180)
    results: dict[str, object] = {"config": config, "overrides": list(overrides)}
    check_local(out, "--out")
    if not os.path.isdir(out.parent):  # before an hour of measuring
        raise UserError(
            f"--out {out} cannot be written: {out.parent} is not a folder. Make it, or write another --out."
        )
    with writing(f"--out {out}", "Write another --out."):
        try_file(out)
    if peer_unsee is not None:
        check_here(peer_unsee, "--peer-unsee ", "give its folder.")
    if peer_unsee is not None and not os.path.isdir(peer_unsee):
        raise UserError(
            f"--peer-unsee {peer_unsee} is not a folder. Give a checkout of asparius/UNSEE, or leave it out."
        )
    with tempfile.TemporaryDirectory() as scratch:
        for part in _parts(only, console):
            console.print(f"{part} ...", markup=False)
            if part == "gpu":
                _measure_gpu(results, config, overrides, out, console)
            else:
                results |= _measure(part, config, overrides, Path(scratch), peer_unsee, console)
            _write(out, results)
    console.print(f"written to {out}", markup=False)
    if crashed := _crashed(results.get("gpu")):
        raise UserError(f"these cases ended with an error: {', '.join(crashed)}. Their errors are in {out}.")


def _parts(only: Collection[str] | None, console: Console) -> list[str]:
    """The parts to run, in order."""
    from unsee_dist.bench.gpu import check_gpu

    if only is not None:
        only = {*only, *(part for asked in only for part in INCLUDED.get(asked, ()))}
    if only is not None and "gpu" not in only:
        return [part for part in PARTS if part in only]
    try:
        check_gpu()
    except UserError as error:
        if only is not None:
            raise
        console.print(f"gpu: left out. {error}", markup=False)
        return [part for part in PARTS if part != "gpu"]
    return [part for part in PARTS if only is None or part in only]


def _measure_gpu(
    results: dict[str, object], config: str, overrides: Sequence[str], out: Path, console: Console
) -> None:
    """Written after each case, so that what was measured survives a stop. Does not import the other parts' peers."""
    from unsee_dist.bench import gpu

    for so_far in gpu.measure(config, overrides, console):
        results["gpu"] = so_far
        _write(out, results)


def _write(out: Path, results: Mapping[str, object]) -> None:
    with writing(out, "Write another --out."):
        write_file(out, json.dumps(results, indent=1))


def _crashed(gpu: object) -> list[str]:
    """Cases of the part "gpu" whose process ended with an error."""
    from unsee_dist.bench.gpu import crashed

    return crashed(gpu) if isinstance(gpu, Mapping) else []


def _measure(
    part: str,
    config: str,
    overrides: Sequence[str],
    scratch: Path,
    peer_unsee: Path | None,
    console: Console,
) -> Mapping[str, object]:
    from unsee_dist.bench import (
        compiled,
        corpus,
        index,
        masks,
        order,
        overlap,
        reading,
        recovery,
        scale,
        store,
        sweep,
        training,
    )
    from unsee_dist.config import load

    if part == "training":
        return training.train(config, overrides, scratch, peer_unsee, console)
    if part == "masks":
        rows = masks.cost(config, overrides, scratch / "masks")
        console.print(masks.page(rows))
        return {"masks": rows}
    if part == "compile":
        rows = compiled.cost(config, overrides, scratch / "compile")
        console.print(compiled.page(rows))
        return {"compile": rows}
    if part == "corpus":
        return corpus.read_and_prepare(load(config, overrides), scratch, console)
    if part == "recovery":
        seconds = recovery.recovery_s(config, overrides, scratch / "killed")
        console.print(recovery.summary(seconds), markup=False)
        return {"recovery_s": seconds}
    if part == "order":
        seeks = order.seek_cost()
        console.print(order.summary(seeks), markup=False)
        return {"order": seeks}
    if part == "scale":
        counts, opened = scale.measure(), store.measure()
        projected, at_start = scale.projection(counts), store.projection()
        for page in (*scale.pages(counts, projected), *store.pages(opened, at_start)):
            console.print(page)
        read = reading.measure()
        console.print(reading.page(read))
        beside = overlap.projection(scale.RANKS[1:])
        console.print(overlap.page(beside))
        return {
            "scale": counts,
            "scale_projection": projected,
            "scale_overlap": beside,
            "read_amplification": read,
            "store_sockets": opened,
            "store_sockets_at_1024": at_start[-1]["rank_0"],
        }
    if part == "index":
        memory = index.index_cost(scratch / "index")
        console.print(index.summary(memory), markup=False)
        return {"index": memory, "index_mb_at_1e10": max(memory["rank_mb"], memory["worker_mb"])}
    cost = sweep.sweep_cost(config, overrides, scratch / "sweep")
    console.print(sweep.summary(cost), markup=False)
    return {"sweep": cost}
