"""Training in several cases, each in processes of its own so that peak memory is the case's; whole training beside others.

Machines are noisy: compare rows of one call; the preset is timed first, between and last, and the range of the
three is printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from unsee_dist.bench import table
from unsee_dist.bench.launch import in_processes
from unsee_dist.config.unused import under

PRESET = "as configured"

# One thing changed at a time from the preset: (label, ranks, overrides).
CASES: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    (PRESET, 1, ()),
    ("data.pack=false", 1, ("data.pack=false",)),
    ("precision fp32", 1, ("parallel.precision=fp32",)),
    ("barlow_twins", 1, ("objective.name=barlow_twins",)),
    ("corinfomax", 1, ("objective.name=corinfomax",)),
    ("byol", 1, ("objective.name=byol",)),
    (
        "simcse",
        1,
        ("objective.name=simcse", "target.kind=online", "projector.kind=tanh", "projector.side=both"),
    ),
    *((f"ZeRO-{stage}, 2 ranks", 2, (f"parallel.zero={stage}",)) for stage in range(4)),
    (PRESET, 1, ()),
    *(
        (f"batch {batch} {size}", 1, (f"train.batch={batch}", f"train.micro_batch={micro}"))
        for batch, size, micro in (
            (256, "whole", "null"),
            (256, "in micro_batches of 32", "32"),
            (1024, "whole", "null"),
            (1024, "in micro_batches of 256", "256"),
            (1024, "in micro_batches of 32", "32"),
        )
    ),
    (PRESET, 1, ()),
)


def train(
    config: str, overrides: Sequence[str], scratch: Path, peer_unsee: Path | None, console: Console
) -> dict[str, list[table.BenchRow]]:
    """Run every case and the peers and print the tables. UserError: a case fails."""
    rows: list[table.BenchRow] = []
    whole: list[table.BenchRow] = []
    for place, (label, ranks, changed) in enumerate(CASES):
        console.print(f"{label} ...", markup=False)
        variant = [*changed, f"run.dir={scratch}/{place}", "track.mlflow=false"]
        arguments = [config, *under(variant, overrides)]
        row = in_processes("unsee_dist.bench.step", arguments, ranks)
        rows.append({"case": label, "ranks": ranks} | row)
    for name in ("unsee_dist", "unsee_dist fp32", *_peers(peer_unsee), "unsee_dist"):
        console.print(f"{name} ...", markup=False)
        arguments = [
            name,
            str(peer_unsee),
            config,
            *overrides,
            f"run.dir={scratch}/run",
            "track.mlflow=false",
        ]
        whole.append({"trainer": name} | in_processes("unsee_dist.bench.peers", arguments, 1))
    for page in (table.rates(rows), table.stages(rows), table.trainers(whole)):
        console.print(page)
    console.print(table.drift(rows, PRESET), markup=False)
    return {"rows": rows, "whole": whole}


def _peers(peer_unsee: Path | None) -> list[str]:
    theirs = ["sentence-transformers SimCSE fp32", "sentence-transformers SimCSE bf16"]
    return theirs if peer_unsee is None else [*theirs, "released code fp32"]
