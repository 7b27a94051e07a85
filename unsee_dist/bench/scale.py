"""`unsee bench --only scale`: what a step sends, waits for and launches on 1 to 1,024 ranks, counted, and a projection.

    python -m unsee_dist.bench.scale RANKS          a JSON line for each objective and ZeRO stage

Counted, of one rank of RANKS on a pretended GPU over a pretended NCCL (pretended/), in one process: the real engine, a BERT of
two layers, six sentences a rank in bf16, without dropout (a mask is one kernel of Triton on a real GPU, and some 25 operations
here). Collectives, host reads and objects are those of any size of model below stage 3; bytes and operations are this model's.

    collectives            of tensors, in a step
    bytes                  that a rank sends where the ranks form a ring
    host_reads             the host waits for a number of the GPU
    object_collectives     of python objects
    operations             launched

Projected, at BERT-base's size with SENTENCES sentences a rank, below stage 3 (whose gathers run beside the computation):

    step = computation + collectives · LATENCY_S · ⌈log₂ R⌉ + bytes / BANDWIDTH          nothing overlaps

`bytes` by `sent`, which the counts confirm: of R ranks, a sum of n bytes sends 2 n (R − 1) / R, a gather to n bytes n (R − 1) / R.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from rich.table import Table

from unsee_dist.bench import synthetic
from unsee_dist.bench.gpu_step import Built
from unsee_dist.bench.launch import rows
from unsee_dist.bench.table import BenchRow, table
from unsee_dist.config import RunConfig, load
from unsee_dist.distributed.batchnorm import SyncBatchNorm
from unsee_dist.distributed.process_group import join_world, leave_world
from unsee_dist.distributed.world import World
from unsee_dist.inputs import assemble
from unsee_dist.model.fresh import FreshSize
from unsee_dist.model.unsee import Unsee
from unsee_dist.run import build_target, make_engine, seed_everything
from unsee_dist.training.step import train_step

PRESETS = {
    "barlow_twins": "unsee-barlow",
    "vicreg": "unsee-vicreg",
    "corinfomax": "unsee-corinfomax",
    "byol": "byol",
    "simcse": "simcse",
}
RANKS, STAGES = (1, 8, 64, 1024), (0, 1, 2, 3)
SMALL = FreshSize(vocabulary=64, width=16, layers=2, heads=2, max_tokens=64)
OF_A_RANK = 6  # sentences of the small model
STEADY = 4  # the step that is counted: at stage 3 deepspeed records the order of layers in the first two

SENTENCES = 1024  # of the projection
COMPUTATION_S = 0.182  # docs/results/gpu.md: a step of 1,024 sentences on one H200 in bf16
LATENCY_S = 10e-6  # of a hop, NCCL between hosts
BANDWIDTH = 25e9  # bytes a second of one GPU's share of the network: 200 Gbit/s


@dataclass(frozen=True)
class ModelSize:
    """What decides how many bytes a step sends. weights: trained numbers; followed: those that the target copies."""

    weights: int
    followed: int
    width: int
    hidden: int  # features of the projector's BatchNorm layers
    sentences: int  # a rank


def measure(limit_s: float = 600.0) -> list[BenchRow]:
    """A row for each number of ranks, objective and stage."""
    environment = {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return [
        row
        for ranks in RANKS
        for row in rows("unsee_dist.bench.scale", [str(ranks)], 1, environment=environment, limit_s=limit_s)
    ]


def counted(ranks: int) -> Iterator[BenchRow]:
    """The rows of so many ranks. Changes the whole process."""
    for objective in PRESETS:
        for stage in STAGES:
            yield count(objective, ranks, stage)


def count(objective: str, ranks: int, stage: int) -> BenchRow:
    """One step of one rank, the counts of a row."""
    from unsee_dist.bench.pretended.world import pretended_world

    config = small_config(objective, ranks, stage)
    with pretended_world(0, ranks) as pretended:
        gpu, ledger = pretended.gpu, pretended.ledger
        built = build(config, pretended.world)
        batch = built.batches[0].to(pretended.world.device)
        for step in range(STEADY):
            for counts in (gpu.counts, ledger.sent, ledger.objects):
                counts.clear()
            with pretended.hot_path():
                assert train_step(built.engine, built.target, batch, 1e-4, 0.99).applied, (objective, step)
        row = {
            "ranks": ranks,
            "objective": objective,
            "zero": stage,
            "collectives": len(ledger.sent),
            "bytes": sum(sent.bytes for sent in ledger.sent),
            "host_reads": gpu.counts["host_reads"],
            "object_collectives": sum(ledger.objects.values()),
            "operations": gpu.counts["operations"],
        }
        built.engine.engine.destroy()
    return row


def small_config(objective: str, ranks: int, stage: int) -> RunConfig:
    changed = {
        "train.batch": OF_A_RANK * ranks,
        "train.micro_batch": "null",
        "model.dropout": 0,
        "model.max_tokens": SMALL.max_tokens,
        "parallel.precision": "bf16",
        "parallel.zero": stage,
    }
    return load(PRESETS[objective], [f"{name}={value}" for name, value in changed.items()])


def build(config: RunConfig, world: World) -> Built:
    """Engine, target and a batch, as a run makes them."""
    seed_everything(config.seed)
    engine = make_engine(config, small_model(config, world), world, config.parallel.zero)
    host = World(world.rank, world.size, world.local_rank, torch.device("cpu"))
    return Built(engine, build_target(engine), [synthetic.batch(config, SMALL.vocabulary, 1, host)])


def small_model(config: RunConfig, world: World) -> Unsee:
    return assemble(synthetic.fresh_bert(SMALL, config.model.dropout, torch.device("cpu")), config, world)


def sent(objective: str, ranks: int, stage: int, size: ModelSize) -> float:
    """Bytes that a rank sends in a step below stage 3 in bf16, alignment left out."""
    summed = 4.0 * size.weights  # gradients
    gathered = 0.0
    if stage > 0:
        # of the target each rank gives as much as the one that holds most of it: a whole part, where that is encoder alone
        gathered += 2.0 * (size.weights + min(size.weights, ranks * size.followed))
    summed += 2 * 2 * (8 + 4) * size.hidden  # two sums of two views, in fp64 forward and fp32 backward
    if objective in ("barlow_twins", "vicreg", "corinfomax"):
        summed += 2 * 8.0 * size.width**2
    if objective == "simcse":
        rows_of_all = 4.0 * ranks * size.sentences * size.width
        gathered, summed = gathered + rows_of_all, summed + rows_of_all
    return (2 * summed + gathered) * (ranks - 1) / ranks


def size_of(model: Unsee, sentences: int) -> ModelSize:
    """Of a model that is not under an engine yet."""
    norms = [module for module in model.projector.modules() if isinstance(module, SyncBatchNorm)]
    return ModelSize(
        weights=sum(p.numel() for p in model.parameters() if p.requires_grad),
        followed=sum(p.numel() for p in model.frozen().values()),
        width=model.online.config.hidden_size,
        hidden=sum(norm.weight.numel() for norm in norms if norm.weight is not None),
        sentences=sentences,
    )


def base_size(objective: str) -> ModelSize:
    """BERT-base with the preset's projector; no memory is taken for it."""
    nowhere = torch.device("meta")
    config = load(PRESETS[objective])
    encoder = synthetic.fresh_bert(synthetic.BERT_BASE, None, nowhere)
    with nowhere:
        return size_of(assemble(encoder, config, World(0, 1, 0, nowhere)), SENTENCES)


def projection(counts: Sequence[BenchRow]) -> list[BenchRow]:
    """What the counts make of a step at BERT-base's size. efficiency: of R ranks against R times one."""
    projected = []
    for row in counts:
        if row["zero"] == 3:
            continue
        ranks, objective = row["ranks"], row["objective"]
        size = sent(objective, ranks, row["zero"], base_size(objective))
        hops = math.ceil(math.log2(ranks))
        step_s = COMPUTATION_S + row["collectives"] * LATENCY_S * hops + size / BANDWIDTH
        projected.append(
            {name: row[name] for name in ("ranks", "objective", "zero")}
            | {"bytes": size, "step_ms": 1000 * step_s, "efficiency": COMPUTATION_S / step_s}
        )
    return projected


def pages(counts: Sequence[BenchRow], projected: Sequence[BenchRow]) -> list[Table]:
    names = ("collectives", "bytes", "host_reads", "object_collectives", "operations")
    counts_table = table("a step, counted (a small BERT)", ("ranks, objective, zero", *names))
    for row in counts:
        counts_table.add_row(_label(row), *(f"{row[name]:,}" for name in names))
    title = (
        f"a step, projected: BERT-base, {SENTENCES} sentences a rank. {1000 * COMPUTATION_S:.0f} ms of computation (one H200) + "
        f"collectives x {1e6 * LATENCY_S:.0f} us x log2(ranks) + bytes / {BANDWIDTH / 1e9:.0f} GB/s, nothing overlapped"
    )
    expected = table(title, ("ranks, objective, zero", "MB sent", "ms", "efficiency"))
    for row in projected:
        expected.add_row(
            _label(row), f"{row['bytes'] / 1e6:.0f}", f"{row['step_ms']:.0f}", f"{row['efficiency']:.0%}"
        )
    return [counts_table, expected]


def _label(row: BenchRow) -> str:
    return f"{row['ranks']:,}, {row['objective']}, {row['zero']}"


def main(ranks: str) -> None:
    join_world()
    for row in counted(int(ranks)):
        print(json.dumps(row), flush=True)
    leave_world()


if __name__ == "__main__":
    main(*sys.argv[1:])
