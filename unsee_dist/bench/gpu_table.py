"""Rows of `unsee bench --only gpu` -> tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from unsee_dist.bench.gpu_step import AGAIN, BASELINE, EXACT_0, PARTS, TORCH, TORCH_0
from unsee_dist.bench.table import BenchRow, table

COUNTED = (
    "use: of the matmul ceiling measured here in that precision, by the weights of encoder and projector and the "
    "tokens that are not padding. Attention's products and second encodings in backward are not counted.\n"
    f"time a sentence: {BASELINE} = 1. host: what the host needs for a step, without its wait in `finish`; near step, "
    "the host holds the device back. launches, reads (copies to the host), waits: of one profiled step."
)
STOPPED = (
    "The device is waited for after each part: longer than a free step. other: moving the batch, pooling."
)


def pages(result: BenchRow) -> Iterator[Table | str]:
    """Tables and sentences, in order."""
    steps: Sequence[BenchRow] = result["rows"]
    by_case = {row["case"]: row for row in steps if "error" not in row}
    if "machine" in result:
        yield _title(result)
    yield _rates([*steps, *result["peers"]], by_case.get(BASELINE))
    yield f"{COUNTED}\n{result['lengths']}"
    yield _parts(list(by_case.values()))
    yield STOPPED
    if BASELINE in by_case:
        yield _kernels(by_case[BASELINE])
    yield from _comparisons(by_case)
    if result["scaling"]:
        yield _scaling(result["scaling"])
    yield from (f"{row['case']}: {row['error']}" for row in [*steps, *result["peers"]] if "error" in row)


def line(row: BenchRow) -> str:
    """A row in one line, while the others are measured."""
    if "error" in row:
        return str(row["error"])
    return f"{row['step_ms']:.1f} ms a step, {row['sentences_per_s']:,.0f} sentences/s, {row['peak_mib']:,.0f} MiB"


def _title(result: BenchRow) -> str:
    machine, ceilings = result["machine"], result["ceilings"]
    rates = ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in ceilings.items())
    return (
        f"{machine['device']}, driver {machine['driver']}, torch {machine['torch']}, deepspeed {machine['deepspeed']}, "
        f"{machine['date']}. Matmul ceilings in TFLOP/s: {rates}."
    )


def _rates(rows: Sequence[BenchRow], baseline: BenchRow | None) -> Table:
    columns = (
        "sentences/s",
        "tokens/s",
        "use",
        "step ms",
        "of it host",
        "time a sentence",
        "launches",
        "reads",
        "waits",
        "peak MiB",
    )
    made = table("the training step, BERT-base", ("case", *columns))
    for row in rows:
        name = _name(row)
        if "error" in row:
            made.add_row(name, "-")
            continue
        # of the time of a sentence, so that batches of other sizes compare
        ratio = baseline["sentences_per_s"] / row["sentences_per_s"] if baseline else float("nan")
        made.add_row(
            name,
            f"{row['sentences_per_s']:,.0f}",
            f"{row['tokens_per_s']:,.0f}",
            f"{row['utilisation']:.0%}",
            f"{row['step_ms']:.1f}",
            f"{row['host_ms']:.1f}",
            f"{ratio:.2f}",
            f"{row['launches']:,}",
            str(row["host_reads"]),
            str(row["waits"]),
            f"{row['peak_mib']:,.0f}",
        )
    return made


def _name(row: BenchRow) -> str:
    """With the batch, where the label lacks it, and the steps that were skipped."""
    name = (
        row["case"]
        if "batch" in row["case"] or "batch" not in row
        else f"{row['case']}, batch {row['batch']:,}"
    )
    return f"{name} ({row['skipped']} of {row['steps']} steps skipped)" if row.get("skipped") else name


def _parts(rows: Sequence[BenchRow]) -> Table:
    made = table("milliseconds of a stopped step", ("case", *PARTS, "step", "free step"))
    for row in rows:
        made.add_row(
            row["case"], *(f"{row['ms'][part]:.1f}" for part in (*PARTS, "step")), f"{row['step_ms']:.1f}"
        )
    return made


def _kernels(row: BenchRow) -> Table:
    made = table(
        f"{row['case']}: the longest kernels, {row['kernel_ms']:.1f} ms in all",
        ("kernel", "launches", "ms", "share"),
    )
    for kernel in row["longest"]:
        made.add_row(
            kernel["name"][:110], f"{kernel['launches']:,}", f"{kernel['ms']:.2f}", f"{kernel['share']:.1%}"
        )
    return made


def _comparisons(rows: Mapping[str, BenchRow]) -> Iterator[str]:
    """What exact masks cost, and how far two trials of one case are apart."""
    comparisons = (
        (BASELINE, TORCH, "exact masks and their attention, to torch's dropout and attention"),
        (BASELINE, EXACT_0, "exact masks, to no dropout"),
        (EXACT_0, TORCH_0, "attention that can take exact masks, to torch's, without dropout"),
        (AGAIN, BASELINE, f"noise: `{BASELINE}` last, to first"),
    )
    for case, other, what in comparisons:
        if case in rows and other in rows:
            yield f"{what}: {rows[case]['step_ms'] / rows[other]['step_ms']:.2f} times the time of a step"


def _scaling(rows: Sequence[BenchRow]) -> Table:
    made = table(
        "weak scaling on the CPU, 8 sentences a rank",
        ("case", "threads a rank", "step ms", "sentences/s", "efficiency"),
    )
    for row in rows:
        if "error" in row:
            made.add_row(row["case"], "-", "-", row["error"][:80])
            continue
        efficiency = f"{row['efficiency']:.0%}" if "efficiency" in row else "-"
        made.add_row(
            row["case"],
            str(row["threads"]),
            f"{row['step_ms']:.1f}",
            f"{row['sentences_per_s']:.0f}",
            efficiency,
        )
    return made
