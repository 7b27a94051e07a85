"""The real training step at BERT-base's size, case after case in one process.

    python -m unsee_dist.bench.gpu_step CASES CONFIG [key=value ...]        CASES: a JSON list of labels

Prints a JSON line for the machine, then one for each case.

Each case makes its engine anew and takes it through steps of three kinds:

    free         train_step and nothing else: the time of a step, and what the host does in it
    stopped      the device waited for at the borders of the parts: their times. Longer than a free step
    profiled     one step: kernels launched, copies to the host, the kernels that take longest

Times are medians, in milliseconds. `host`: the phases of a free step on the host's clock. In `finish` the host waits
for the device, so `host_ms` is the step without it; where that is near `step_ms`, the host holds the device back.

    utilisation = arithmetic of the non-padding tokens / (time x the matmul ceiling, measured in the same precision)

Arithmetic: of the weights of encoder and projector. Attention's own products, a second encoding of micro-batches in
backward, and padding are not counted as useful.
"""

from __future__ import annotations

import gc
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from unsee_dist.bench import synthetic
from unsee_dist.bench.kernels import as_row, profiled
from unsee_dist.bench.machine import machine
from unsee_dist.bench.step import NETWORKS, Clock, arithmetic, matrix_weights
from unsee_dist.bench.table import STAGES, BenchRow
from unsee_dist.bench.timing import Effort, free_steps, measure_ceilings, peak_mib
from unsee_dist.config import RunConfig, load
from unsee_dist.config.unused import under
from unsee_dist.data import Batch
from unsee_dist.distributed.engine import Engine
from unsee_dist.distributed.process_group import join_world, leave_world
from unsee_dist.distributed.world import World
from unsee_dist.errors import UserError
from unsee_dist.inputs import assemble
from unsee_dist.model.dropout import remove
from unsee_dist.model.fresh import FreshSize
from unsee_dist.model.target import Target
from unsee_dist.model.unsee import Unsee
from unsee_dist.run import build_target, make_engine, seed_everything
from unsee_dist.supervision.phases import observing
from unsee_dist.training.step import train_step

PARTS = (*STAGES[1:], "other")  # of a stopped step; other: moving the batch, pooling, masks of packed rows
HOST = ("forward", "backward", "finish", "optimizer", "ema", "logging")  # of a free step
LR, DECAY = 1e-5, 0.999


@dataclass(frozen=True)
class Case:
    """What differs from the configuration. exact_masks: False = torch's own dropout and attention (sdpa). stage: ZeRO's; None = what
    a run on so many ranks takes."""

    label: str
    overrides: tuple[str, ...] = ()
    batch: int = 1024
    micro_batch: int | None = None
    exact_masks: bool = True
    stage: int | None = None

    def config(self, config: str, overrides: Sequence[str]) -> RunConfig:
        micro = "null" if self.micro_batch is None else self.micro_batch
        sizes = (f"train.batch={self.batch}", f"train.micro_batch={micro}")
        return load(config, under([*self.overrides, *sizes], overrides))


BASELINE, AGAIN = "batch 1,024", "batch 1,024 again"
TORCH, EXACT_0, TORCH_0 = "torch's dropout, sdpa", "model.dropout=0", "model.dropout=0, sdpa"
SIMCSE = ("objective.name=simcse", "target.kind=online", "projector.kind=tanh", "projector.side=both")
# The most important ones first: time may run out.
CASES = (
    Case(BASELINE),
    Case("batch 32", batch=32),
    Case("batch 16,384 in micro_batches of 512", batch=16384, micro_batch=512),
    Case(TORCH, exact_masks=False),
    Case(EXACT_0, ("model.dropout=0",)),
    Case(TORCH_0, ("model.dropout=0",), exact_masks=False),
    Case("data.pack=false", ("data.pack=false",)),
    Case("precision fp32", ("parallel.precision=fp32",)),
    Case("precision fp16", ("parallel.precision=fp16",)),
    Case("ZeRO-1", stage=1),
    Case("simcse, batch 32", SIMCSE, batch=32),
    Case("simcse, batch 1,024", SIMCSE),
    Case(AGAIN),
    Case("ZeRO-3", stage=3),  # last: deepspeed keeps its weights
)


def effort_of(case: Case) -> Effort:
    """Of a large batch one step is as much warm-up as three of a small one, and as many seconds."""
    return Effort(warm_up=1, least=2, batches=1, stopped=1) if case.batch > 4096 else Effort()


class Built(NamedTuple):
    """A case, ready for its steps."""

    engine: Engine[Unsee]
    target: Target | None
    batches: list[Batch]


def measure(
    case: Case,
    config: RunConfig,
    size: FreshSize,
    world: World,
    ceilings: Mapping[str, float],
    effort: Effort,
) -> BenchRow:
    """The row of a case; where memory runs out or the engine refuses the case, a row with the sentence in `error`.

    ceilings: operations a second by precision.
    """
    row: BenchRow = {"case": case.label, "batch": config.train.batch, "precision": config.parallel.precision}
    gc.collect()
    held = 0
    if world.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()  # by what earlier cases left; not a part of this one's peak
    built = None
    try:
        built = build(case, config, size, world, effort.batches)
        measured = _measured(built, config, ceilings.get(config.parallel.precision, math.nan), effort)
    except (UserError, torch.OutOfMemoryError) as error:
        return row | {"error": str(error).splitlines()[0]}
    finally:
        if built is not None:
            built.engine.engine.destroy()  # else its hooks keep the weights, and the next case has less memory
    return row | measured | {"peak_mib": measured["peak_mib"] - held / 2**20, "held_mib": held / 2**20}


def build(case: Case, config: RunConfig, size: FreshSize, world: World, different: int) -> Built:
    """Engine, target and batches as a run makes them, from random weights and random sentences."""
    seed_everything(config.seed)
    encoder = synthetic.fresh_bert(size, config.model.dropout, world.device)
    if not case.exact_masks:
        remove(encoder)
    engine = make_engine(config, assemble(encoder, config, world), world, case.stage)
    batches = [
        synthetic.batch(config, size.vocabulary, step, world, case.exact_masks)
        for step in range(1, different + 1)
    ]
    return Built(engine, build_target(engine), batches)


def step_of(built: Built, number: int) -> bool:
    """The real step, as the loop takes it. Whether it was applied."""
    batch = built.batches[number % len(built.batches)].to(built.engine.world.device)
    return train_step(built.engine, built.target, batch, LR, DECAY).applied


def warm_up(built: Built, effort: Effort) -> None:
    """Steps until memory, kernels and the loss scale are found. UserError: no step is applied."""
    applied = False
    for number in range(effort.warm_up + effort.until_applied):
        if number >= effort.warm_up and applied:
            return
        applied = step_of(built, number)
    if not applied:
        raise UserError(f"none of {effort.warm_up + effort.until_applied} steps was finite.")


def clocked(built: Built, number: int, clock: Clock) -> dict[str, float]:
    """Seconds of the stages of one step by this clock, and of the whole `step`; applied: 1 or 0."""
    started = clock.now()
    clock.begin(started)
    with observing(clock.enter):
        applied = step_of(built, number)
        clock.enter("end", number)
    return clock.spent | {"step": clock.now() - started, "applied": float(applied)}


def _measured(built: Built, config: RunConfig, ceiling: float, effort: Effort) -> BenchRow:
    device, model, sentences = built.engine.world.device, built.engine.module, config.train.batch
    warm_up(built, effort)
    on_host = Clock(torch.device("cpu"))
    steps_s, hosts = free_steps(device, lambda number: clocked(built, number, on_host), effort)
    tokens = statistics.fmean(
        built.batches[number % len(built.batches)].tokens for number in range(len(hosts))
    )
    peak = peak_mib(device)
    profile = profiled(device, lambda: step_of(built, 0))
    stopped = _stopped_step(built, effort)  # last: its hooks stay
    step_s, host = statistics.median(steps_s), _median_step(hosts)
    host["forward"] = host["step"] - sum(host.get(name, 0.0) for name in HOST)
    stopped["other"] = stopped["step"] - sum(stopped.get(name, 0.0) for name in PARTS)
    useful = arithmetic(model, matrix_weights(model.online), tokens, sentences)
    return {
        "steps": len(steps_s),
        "skipped": sum(1 - int(each["applied"]) for each in hosts),
        "step_ms": 1000 * step_s,
        "slowest_ms": 1000 * max(steps_s),
        "tokens": tokens,
        "sentences_per_s": sentences / step_s,
        "tokens_per_s": tokens / step_s,
        "padding": synthetic.padding(built.batches),
        "utilisation": useful / step_s / ceiling,
        "host_ms": 1000 * (host["step"] - host.get("finish", 0.0)),
        "host": {name: 1000 * host.get(name, 0.0) for name in (*HOST, "step")},
        "ms": {name: 1000 * stopped.get(name, 0.0) for name in (*PARTS, "step")},
        "peak_mib": peak,
        **as_row(profile),
    }


def _stopped_step(built: Built, effort: Effort) -> dict[str, float]:
    clock = Clock(built.engine.world.device)
    clock.watch({name: getattr(built.engine.module, name) for name in NETWORKS})
    return _median_step([clocked(built, number, clock) for number in range(effort.stopped)])


def _median_step(steps: list[dict[str, float]]) -> dict[str, float]:
    """The step whose time is the median: of one step, so that its parts add up."""
    return sorted(steps, key=lambda each: each["step"])[len(steps) // 2]


def main(labels: str, config: str, *overrides: str) -> None:
    world = join_world()
    ceilings = measure_ceilings(world.device)
    print(json.dumps({"machine": machine(world.device), "ceilings": ceilings}), flush=True)
    for label in json.loads(labels):
        case = next(each for each in CASES if each.label == label)
        row = measure(
            case, case.config(config, overrides), synthetic.BERT_BASE, world, ceilings, effort_of(case)
        )
        print(json.dumps(row), flush=True)
    leave_world()


if __name__ == "__main__":
    main(*sys.argv[1:])
