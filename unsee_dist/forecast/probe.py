"""Some real steps of one rank's part on this machine, alone: their seconds, and the memory at its peak.

What several ranks send to each other is not in it, nor what they wait for. Nothing is written.
"""

from __future__ import annotations

import itertools
import resource
import statistics
import time
from dataclasses import dataclass

import torch

from unsee_dist.config import RunConfig
from unsee_dist.distributed.engine import Engine
from unsee_dist.distributed.placement import device_name
from unsee_dist.distributed.process_group import join_world, leave_world
from unsee_dist.distributed.world import World
from unsee_dist.forecast.derived import Derived
from unsee_dist.forecast.memory import Sizes
from unsee_dist.inputs import Inputs, open_inputs
from unsee_dist.model.checked import load_once
from unsee_dist.model.unsee import Unsee
from unsee_dist.run import build_target, seed_everything
from unsee_dist.supervision.signals import StopSignal
from unsee_dist.training.embed import CHUNK_SENTENCES, embedder
from unsee_dist.training.step import train_step

STEPS, ENOUGH_S = 5, 20.0  # after one that warms up; fewer where they take longer


@dataclass(frozen=True)
class Probe:
    """step_s: of one rank's part of a step. evaluation_s: of all ranks, when each encodes its share. peak: bytes, 0 where it is
    not known. device: what it ran on."""

    sizes: Sizes
    step_s: float
    evaluation_s: float
    peak: int
    device: str


def sizes_of(model: Unsee) -> Sizes:
    shape = model.online.config
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return Sizes(
        trained=sum(p.numel() for p in trained.values()),
        followed=sum(trained[name].numel() for name in model.frozen()),
        encoder=sum(p.numel() for p in model.online.parameters()),
        layers=int(getattr(shape, "num_hidden_layers", getattr(shape, "n_layers", 0))),
        width=int(shape.hidden_size),
        heads=int(getattr(shape, "num_attention_heads", getattr(shape, "n_heads", 0))),
    )


def probe(config: RunConfig, derived: Derived) -> Probe:
    """UserError: memory does not suffice, or an encoder cannot be trained so; the sentences are those of a run."""
    part = max(2, derived.batch_a_rank)
    train = config.train.model_copy(update={"batch": part})
    data = config.data.model_copy(update={"workers": 0, "tokenise": False})
    alone = config.model_copy(update={"train": train, "data": data})
    world, stop = join_world(), StopSignal()
    try:
        seed_everything(config.seed)
        inputs = open_inputs(alone, world, load_once(config.model, world))
        sizes = sizes_of(inputs.model)
        engine = Engine(inputs.model, world, 0, config.parallel.precision, weight_decay=0.01, clip=1.0)
        step_s = _step_s(engine, inputs, config.target.decay)
        peak = _peak(world)
        evaluation_s = _evaluation_s(engine, inputs, config, stop) / derived.ranks
        return Probe(sizes, step_s, evaluation_s, peak, device_name(world.device))
    finally:
        stop.close()
        leave_world()


def _step_s(engine: Engine[Unsee], inputs: Inputs, decay: float) -> float:
    target, seconds = build_target(engine), list[float]()
    for batch in itertools.islice(inputs.stream.batches(1, STEPS + 1), STEPS + 1):
        began = time.perf_counter()
        train_step(engine, target, batch.to(engine.world.device), 0.0, decay)
        seconds.append(time.perf_counter() - began)
        if sum(seconds) > ENOUGH_S and len(seconds) > 1:
            break
    return statistics.median(seconds[1:])


def _evaluation_s(engine: Engine[Unsee], inputs: Inputs, config: RunConfig, stop: StopSignal) -> float:
    """Of all its sentences on one rank, from a chunk of middle length."""
    sentences = inputs.development.sentences  # the longest first
    middle = max(0, len(sentences) // 2 - CHUNK_SENTENCES // 2)
    chunk = sentences[middle : middle + CHUNK_SENTENCES]
    embed = embedder(
        engine, inputs.tokenizer, config.model.max_tokens, inputs.share_rows, stop, lambda _done, _all: None
    )
    embed(chunk)
    began = time.perf_counter()
    embed(chunk)
    return (time.perf_counter() - began) / len(chunk) * len(sentences)


def _peak(world: World) -> int:
    if world.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(world.device))
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
