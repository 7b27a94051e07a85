"""What one training step costs, in numbers that a change must not raise unseen: tests/procs/step_counts.json.

    python tests/procs/step_counts.py           # compare
    python tests/procs/step_counts.py --write   # write what is counted now

A row is (objective, ranks, ZeRO stage) on a pretended GPU over a pretended NCCL (pretended/), for rank 0 of two small
layers, six sentences a rank in two micro-batches of packed rows, in fp32, at the fourth step: at stage 3 deepspeed records the
order of layers in the first two.

    collectives         by kind
    bytes               that a rank sends where the ranks form a ring
    groups              process groups used: with two, NCCL may run their collectives in another order on another rank
    objects             collectives of python objects: none has a place in a step
    host_reads          the host waits for a number of the GPU
    uploads             from the host's memory: the host waits for the copy
    synchronisations    the host waits for all work of the GPU
    operations          launched on the GPU, views excluded; the count of one version of torch

Without dropout: on a real GPU a Triton kernel takes the place of the some 25 operations a mask that run here. The rows "dropout"
are with it, the rows "bf16" in that precision.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from processes import run

TABLE = Path(__file__).with_suffix(".json")
SIZES, STAGES, STEADY = (1, 2, 8, 64), (0, 1, 2, 3), 4
Count = dict[str, Any]
BY_VERSION = ("operations",)  # other versions of torch split a function into other operations


@dataclass(frozen=True)
class Row:
    """What is counted. name: of the objective, or "dropout" or "bf16" (VICReg with it, or in it)."""

    name: str
    size: int
    stage: int

    def __str__(self) -> str:
        return f"{self.name}, {self.size} rank{'s' * (self.size > 1)}, zero {self.stage}"


def rows() -> Iterator[Row]:
    from unsee_dist.objectives import OBJECTIVES

    for size in SIZES:
        for name in sorted(OBJECTIVES):
            yield from (Row(name, size, stage) for stage in STAGES)
    for name in ("dropout", "bf16"):
        yield from (Row(name, 8, stage) for stage in STAGES)


def count(row: Row, change: Callable[[Any], None] | None = None) -> Count:
    """The counts of a row, in a child of `processes.run`. change: of the engine before the step, a negative control's."""
    import oracle
    from oracle import Case

    from unsee_dist.bench.pretended.device import DEVICE
    from unsee_dist.bench.pretended.world import pretended_world

    case = Case("vicreg" if row.name == "bf16" else row.name)
    if row.name == "simcse":
        case = Case("simcse", ema=False, both=True, projector="tanh")
    elif row.name == "dropout":
        case = Case("vicreg", dropout=0.1)
    precision = "bf16" if row.name == "bf16" else "fp32"
    with pretended_world(0, row.size) as pretended, mock.patch.object(oracle, "DEVICE", DEVICE):
        ours = oracle.running(case, 0, row.size, row.stage, precision)
        gpu, ledger = pretended.gpu, pretended.ledger
        for step in range(1, STEADY + 1):
            batch = oracle.batch(step, 0, 4, micro_batch=3).to(DEVICE)
            if step == STEADY:
                if change is not None:
                    change(ours.engine)
                for counted in (gpu.counts, gpu.waits, ledger.sent, ledger.objects):
                    counted.clear()
            with pretended.hot_path():
                result = oracle.train_step(ours.engine, ours.target, batch, oracle.LR, oracle.DECAY)
            assert result.applied, (row, step)
        names = ("host_reads", "uploads", "synchronisations", "operations")
        return {
            "collectives": dict(sorted(Counter(sent.kind for sent in ledger.sent).items())),
            "bytes": sum(sent.bytes for sent in ledger.sent),
            "groups": len({sent.group for sent in ledger.sent}),
            "objects": sum(ledger.objects.values()),
            **{name: gpu.counts[name] for name in names},
            "waits": dict(gpu.waits),
        }


def count_all(_rank: int, _size: int, wanted: list[Row]) -> dict[str, Count]:
    """A worker of `processes.run`."""
    return {str(row): count(row) for row in wanted}


def differences(pinned: Mapping[str, Count], counted: Mapping[str, Count], version: str) -> list[str]:
    """One sentence for each number that is another. version: of the torch that the table was written with."""
    same_version = torch.__version__.split("+")[0] == version
    sentences = []
    for name in sorted(pinned.keys() | counted.keys()):
        if name not in pinned or name not in counted:
            sentences.append(f"{name}: {'not in the table' if name in counted else 'not counted any more'}")
            continue
        now, before = _flat(counted[name]), _flat(pinned[name])
        for number in sorted(now.keys() | before.keys()):
            gap = now.get(number, 0) - before.get(number, 0)
            if gap and (same_version or number not in BY_VERSION):
                more = "more" if gap > 0 else "fewer"
                sentences.append(
                    f"{name}: this step has {abs(gap)} {more} {number} than pinned "
                    f"({before.get(number, 0)} -> {now.get(number, 0)})"
                )
        waits = counted[name].get("waits", {})
        if waits and any(line.startswith(f"{name}:") for line in sentences):
            sentences.append(f"    it waits at {waits}")
    return sentences


def _flat(count: Count) -> dict[str, int]:
    whole = {name: value for name, value in count.items() if isinstance(value, int)}
    return whole | {f"collectives of kind {kind}": number for kind, number in count["collectives"].items()}


def read() -> tuple[str, dict[str, Count]]:
    """The version of torch, and the rows."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    return table.pop("torch"), table


def write(counted: Mapping[str, Count]) -> None:
    lines = [f'"torch": "{torch.__version__.split("+")[0]}"']
    for name, one in counted.items():
        lines.append(f"{json.dumps(name)}: {json.dumps({k: v for k, v in one.items() if k != 'waits'})}")
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    counted: dict[str, Count] = {}
    for size in SIZES:
        counted |= run(count_all, 1, [row for row in rows() if row.size == size], timeout_s=1200)[0]
    counted = {str(row): counted[str(row)] for row in rows()}
    if arguments == ["--write"]:
        write(counted)
        return 0
    version, pinned = read()
    sentences = differences(pinned, counted, version)
    print("\n".join(sentences) or "as pinned")
    return bool(sentences)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
