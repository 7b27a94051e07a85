"""A tiny run for laws: a real BERT, real objectives, random token batches, and one plain process as the oracle."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from unsee_dist.config.sections import ProjectorKind, ProjectorSettings
from unsee_dist.data.stream.mask_keys import mask_keys
from unsee_dist.data.stream.packing import pack
from unsee_dist.data.stream.stream import Batch
from unsee_dist.distributed.engine import Engine, parameter_groups
from unsee_dist.distributed.reduce import Reduction
from unsee_dist.distributed.replica import Replica
from unsee_dist.distributed.world import World
from unsee_dist.model.dropout import install, register
from unsee_dist.model.projector import make_projector
from unsee_dist.model.target import Target
from unsee_dist.model.unsee import Unsee
from unsee_dist.objectives import OBJECTIVES
from unsee_dist.training.checkpoint.manifest import CheckpointInfo, Identity
from unsee_dist.training.progress import Progress
from unsee_dist.training.step import StepResult, train_step

# deepspeed's stage 3 puts a linear layer of its own in its place, for the whole process: what is made afterwards, a plain
# oracle among it, would compute with that one.
TORCH_LINEAR = torch.nn.functional.linear
DEVICE = torch.device(os.environ.get("UNSEE_TEST_DEVICE", "cpu"))  # set by `processes.run`
VOCABULARY, WIDTH, ROW, BATCH = 60, 16, 24, 24
# Adam turns a first gradient below its eps of 1e-8 into a step, and its rounding with it: under the masks of seed 0 one word
# embedding has 5.2e-9, which exact layouts differ in by 9e-10, and then by 8.7e-5 in that weight for good.
MASK_SEED = 1
LR, DECAY, CLIP, WEIGHT_DECAY = 2e-3, 0.9, 1.0, 0.05

# Parameters that a centred or normalised objective (or the softmax) cannot see: their true gradient is 0, and Adam
# turns its rounding into full steps, which reach the loss through the target (which has no BatchNorm). Frozen here:
# with them, the losses of two exact layouts differ by 9e-4 after ten steps, without by less than 1e-5.
SHIFTS = (
    "attention.self.key.bias",
    "encoder.layer.1.output.LayerNorm.bias",
    "projector.blocks.0.0.bias",
    "projector.blocks.0.5.bias",
)


@dataclass(frozen=True)
class Case:
    """What a law is tried on. Small weights for CorInfoMax: at its own, 99.99% of the gradient is the local MSE."""

    objective: str = "vicreg"
    ema: bool = True
    both: bool = False
    dropout: float = 0.0
    projector: ProjectorKind = "blocks"

    @property
    def settings(self) -> dict[str, float]:
        settings: dict[str, dict[str, float]] = {
            "corinfomax": {"invariance": 1.0, "covariance": 1.0, "eps": 1e-3},
            "barlow_twins": {"affine": True},
        }
        return settings.get(self.objective, {})


def model(case: Case, projector_reduction: Reduction, objective_reduction: Reduction) -> Unsee:
    torch.nn.functional.linear = TORCH_LINEAR
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=ROW,
        hidden_dropout_prob=case.dropout,
        attention_probs_dropout_prob=case.dropout,
    )
    config._attn_implementation = register()
    online = BertModel(config, add_pooling_layer=False).train()
    install(online)
    with torch.no_grad():  # random LayerNorm and bias values: zeros hide a wrong decay
        for parameter in online.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    objective = OBJECTIVES[case.objective](WIDTH, objective_reduction, **case.settings)
    with (
        torch.no_grad()
    ):  # an affine shift of exactly 0 sits on a saddle: its gradient is 0 there and nowhere else
        assert isinstance(objective, torch.nn.Module)
        for parameter in objective.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    unsee = Unsee(
        online,
        make_projector(ProjectorSettings(kind=case.projector, blocks=1, width=3), WIDTH, projector_reduction),
        objective,
        pooling="mean",
        ema=case.ema,
        both=case.both,
    )
    for name, parameter in unsee.named_parameters():
        if name.endswith(SHIFTS):
            parameter.requires_grad_(False)
    return unsee.to(DEVICE)


def batch(  # noqa: PLR0913  (every choice of a batch)
    step: int,
    rank: int = 0,
    size: int = 1,
    micro_batch: int | None = None,
    packed: bool = True,
    by_rank: bool = False,
    few_shapes: bool = False,
) -> Batch:
    """This rank's part of step `step`; the global batch is the same for any size, and differs from rank to rank.

    by_rank: the known wrong way, masks of the place in the rank's part instead of the sentence.
    """
    generator = torch.Generator().manual_seed(step)
    lengths = torch.randint(3, ROW - 4, (BATCH,), generator=generator).tolist()
    tokens = [torch.randint(1, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]
    part = BATCH // size
    mine = tokens[rank * part : (rank + 1) * part]
    cut = micro_batch or part
    ids = np.arange(BATCH)[rank * part : (rank + 1) * part]
    keys = mask_keys(MASK_SEED, step, np.arange(part) if by_rank else ids)
    micro_batches = tuple(
        pack(mine[at : at + cut], ROW, 0, packed, keys[at : at + cut], few_shapes)
        for at in range(0, part, cut)
    )
    return Batch(step, tuple(ids.tolist()), micro_batches, sum(map(len, mine)))


@dataclass
class Running:
    """An engine with its target, as run.py builds them."""

    engine: Engine[Unsee]
    target: Target | None

    def train_step(
        self,
        step: int,
        *,
        micro_batch: int | None = None,
        packed: bool = True,
        by_rank: bool = False,
        few_shapes: bool = False,
        lr: float = LR,
    ) -> StepResult:
        world = self.engine.world
        part = batch(step, world.rank, world.size, micro_batch, packed, by_rank, few_shapes).to(DEVICE)
        return train_step(self.engine, self.target, part, lr, DECAY)

    def whole(self, kind: str) -> dict[str, Tensor]:
        """The whole masters ("master"), EMA ("ema") or Adam moments on every rank, by parameter."""
        world = self.engine.world
        if kind == "ema":
            assert self.target is not None
            pairs = zip(self.target.shards, self.target.ema, strict=True)
            mine = [(s.name, s.start, e.to("cpu", copy=True)) for s, e in pairs]
        elif kind == "master":
            mine = [(s.name, s.start, s.master.to("cpu", copy=True)) for s in self.engine.shards]
        else:
            place = ("exp_avg", "exp_avg_sq").index(kind)
            moments = [(s, self.engine.moments(s)[place]) for s in self.engine.shards]
            mine = [(s.name, s.start, moment.to("cpu", copy=True)) for s, moment in moments]
        return assemble(mine, world.size)

    def published(self) -> dict[str, Tensor]:
        """What the target network itself holds, gathered, by the online parameter's name."""
        import deepspeed

        frozen = self.engine.module.frozen()
        if self.engine.stage < 3:
            return {name: on_cpu(p).flatten() for name, p in frozen.items()}
        with deepspeed.zero.GatheredParameters(list(frozen.values())):
            return {name: on_cpu(p).flatten() for name, p in frozen.items()}


def on_cpu(x: Tensor) -> Tensor:
    """A copy in fp32."""
    return x.detach().to("cpu", torch.float32, copy=True)


def assemble(mine: list[tuple[str, int, Tensor]], size: int) -> dict[str, Tensor]:
    parts: list[Any] = [mine] * size
    if size > 1:
        torch.distributed.all_gather_object(parts, mine)
    slices: dict[str, dict[int, Tensor]] = {}
    for part in parts:
        for name, start, values in part:
            slices.setdefault(name, {})[start] = values
    return {name: torch.cat([by[start] for start in sorted(by)]) for name, by in slices.items()}


def facts(step: int, updates: int | None = None) -> CheckpointInfo:
    """What a save of that step says beside its tensors. updates: None = as many as steps."""
    identity = Identity({"seed": 0}, "encoder", "tokenizer", "corpus", "absent", "absent", "version 2")
    return CheckpointInfo(identity, Progress(step=step, updates=step if updates is None else updates))


def running(  # noqa: PLR0913  (every choice of a run, by keyword)
    case: Case,
    rank: int,
    size: int,
    stage: int,
    precision: Any = "fp32",
    *,
    projector_reduction: Reduction | None = None,
    objective_reduction: Reduction | None = None,
    waiting: str = "",
) -> Running:
    reduction = Reduction(rank, size)
    module = model(case, projector_reduction or reduction, objective_reduction or reduction)
    world = World(rank, size, rank, DEVICE)
    engine = Engine(module, world, stage, precision, weight_decay=WEIGHT_DECAY, clip=CLIP, waiting=waiting)
    frozen = engine.module.frozen()
    if not frozen:
        return Running(engine, None)
    shards = [shard for shard in engine.shards if shard.name in frozen]
    return Running(engine, Target(shards, Replica(shards, frozen, stage, size, engine.writes)))


@dataclass
class Oracle:
    """One plain process on the whole batch: torch's AdamW and clipping, the EMA written out. No engine, no ranks."""

    losses: list[float]
    norms: list[float]
    moments: list[
        dict[str, Tensor]
    ]  # Adam's exp_avg after each step: (1-β₁) Σ β₁^k g, so it shows every gradient
    weights: dict[str, Tensor]
    ema: dict[str, Tensor]


def oracle(case: Case, steps: int, held: int = 0) -> Oracle:
    """held: in the first so many steps the online encoder is put back to where it began."""
    alone = Reduction()
    module = model(case, alone, alone)
    optimizer = torch.optim.AdamW(parameter_groups(module, WEIGHT_DECAY), lr=LR)
    began = {p: p.detach().clone() for p in module.online.parameters()}
    names = {n: p for n, p in module.named_parameters() if p.requires_grad}
    frozen = {n: p for n, p in module.frozen().items() if n in names}
    expected = Oracle([], [], [], {}, {})
    for step in range(1, steps + 1):
        loss, _ = module(batch(step, packed=False).to(DEVICE).micro_batches)
        optimizer.zero_grad()
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(list(names.values()), CLIP))
        optimizer.step()
        with torch.no_grad():
            for parameter, value in began.items() if step <= held else ():
                parameter.copy_(value)
        if hasattr(module.objective, "commit"):
            module.objective.commit()
        with torch.no_grad():
            for name, parameter in frozen.items():
                parameter.copy_(DECAY * parameter + (1 - DECAY) * names[name])
        expected.losses.append(loss.item())
        expected.norms.append(norm)
        expected.moments.append(
            {n: on_cpu(optimizer.state[p]["exp_avg"]).flatten() for n, p in names.items()}
        )
    expected.weights = {n: on_cpu(p).flatten() for n, p in names.items()}
    expected.ema = {n: on_cpu(p).flatten() for n, p in frozen.items()}
    return expected


def gradient_error(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Norm of the difference over all parameters, relative to the global norm."""
    gap = sum(float((ours[n] - theirs[n]).double().square().sum()) for n in theirs)
    size = sum(float(theirs[n].double().square().sum()) for n in theirs)
    return (gap / size) ** 0.5


def weight_error(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest difference of a weight."""
    return max(float((ours[n] - theirs[n]).abs().max()) for n in theirs)
