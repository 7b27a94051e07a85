"""Rows of `unsee bench` -> tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

STAGES = (
    "wait",
    "online",
    "target",
    "projector",
    "objective",
    "backward",
    "finish",
    "optimizer",
    "ema",
    "logging",
)

BenchRow = dict[str, Any]  # of bench.json


def rates(rows: Sequence[BenchRow]) -> Table:
    """Speed, padding and memory. data: the stream by itself. use: of the matmul ceiling, by non-padding tokens.
    save: the pause of a save in the background, and its share of the time between two at the run's cadence."""
    columns = (
        "sentences/s",
        "tokens/s",
        "padding",
        "peak MiB",
        "use",
        "data sentences/s",
        "save ms",
        "share",
    )
    page = table("rates", ("case", *columns))
    for row in rows:
        page.add_row(
            row["case"],
            f"{row['sentences_per_s']:.0f}",
            f"{row['tokens_per_s']:.0f}",
            f"{row['padding']:.0%}",
            f"{row['peak_mib']:.0f}",
            f"{row['utilisation']:.0%}",
            f"{row['data_sentences_per_s']:.0f}",
            f"{1000 * row['save_pause_s']:.0f}",
            f"{row['save_share']:.2%}",
        )
    return page


def stages(rows: Sequence[BenchRow]) -> Table:
    """Milliseconds of a step's parts."""
    page = table("milliseconds of a step", ("case", *STAGES, "step"))
    for row in rows:
        page.add_row(row["case"], *(f"{row['ms'][stage]:.1f}" for stage in (*STAGES, "step")))
    return page


def trainers(rows: Sequence[BenchRow]) -> Table:
    """Whole training, ours (the slower of the times it was run) against the others."""
    page = table(
        "whole training", ("trainer", "sentences/s", "step ms", "peak MiB", "unsee_dist is faster by")
    )
    ours = min(row["sentences_per_s"] for row in rows if row["trainer"] == "unsee_dist")
    for row in rows:
        ratio = ours / row["sentences_per_s"]
        page.add_row(
            row["trainer"],
            f"{row['sentences_per_s']:.0f}",
            f"{row['step_ms']:.0f}",
            f"{row['peak_mib']:.0f}",
            f"{ratio:.2f}",
        )
    return page


def drift(rows: Sequence[BenchRow], case: str) -> str:
    """How much the speed of the machine changed during the cases."""
    speeds = [row["sentences_per_s"] for row in rows if row["case"] == case]
    return (
        f"noise: `{case}` ran at {min(speeds):.0f} to {max(speeds):.0f} sentences/s in {len(speeds)} trials"
    )


def table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(columns[0])
    for name in columns[1:]:
        table.add_column(name, justify="right")
    return table
