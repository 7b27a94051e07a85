"""What deepspeed adds to a step of plain torch, on the host: the same small network under the engine and under a plain loop.

    python -m unsee_dist.bench.hooks STAGE          a JSON line

The network has BERT-base's number of parameters and next to no arithmetic, so that what remains is what the host does: on a GPU
it is hidden while the GPU has work, and is the time of a step where it has too little. Ranks are torch's "fake" group: what is
sent costs nothing. The plain loop sums one flat copy of the gradients, clips and steps as torch does; both have the same forward.
Times are of the processor, in one thread. Of stages 1 and 2 a hook runs after the gradient of each parameter; stage 0 has none.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from rich.table import Table
from torch import Tensor, nn

from unsee_dist.bench.launch import in_processes
from unsee_dist.bench.table import BenchRow, table
from unsee_dist.distributed.engine import BETAS, EPS, Engine, parameter_groups
from unsee_dist.distributed.world import World

STAGES, RANKS = (0, 1, 2), 8
LAYERS, TENSORS, WIDTH = 12, 16, 8  # BERT-base: 12 layers of 16 tensors
WARM_UP, STEPS = 10, 200


class Layers(nn.Module):
    """As many parameters as BERT-base, each used once by a product of 8 x 8 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            nn.Parameter(torch.eye(WIDTH) if place % 2 else torch.zeros(WIDTH))
            for place in range(LAYERS * TENSORS)
        )

    def forward(self, x_BD: Tensor) -> Tensor:
        for weight in self.weights:
            x_BD = x_BD @ weight if weight.ndim == 2 else x_BD + weight
        return x_BD.square().mean()


def cost() -> list[BenchRow]:
    """A row a stage: milliseconds of the backward and of the whole step, plain and under the engine."""
    environment = {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return [
        in_processes("unsee_dist.bench.hooks", [str(stage)], 1, environment=environment) for stage in STAGES
    ]


def page(rows: Sequence[BenchRow]) -> Table:
    title = (
        f"what deepspeed adds on the host, {LAYERS * TENSORS} parameters, {RANKS} pretended ranks: ms a step"
    )
    seen = table(title, ("stage", "backward plain", "engine", "step plain", "engine", "added"))
    for row in rows:
        numbers = (
            row["plain"]["backward"],
            row["engine"]["backward"],
            row["plain"]["step"],
            row["engine"]["step"],
        )
        added = row["engine"]["step"] - row["plain"]["step"]
        seen.add_row(str(row["zero"]), *(f"{1000 * number:.2f}" for number in (*numbers, added)))
    return seen


def measure(stage: int) -> BenchRow:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    os.environ["LOCAL_RANK"] = "0"  # deepspeed asks for it
    torch.set_num_threads(1)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=RANKS)
    torch.manual_seed(0)
    x_BD = torch.randn(4, WIDTH)
    by_turns = [plain_loop(Layers()), engine_loop(Layers(), stage)]
    seconds: list[list[dict[str, float]]] = [[], []]
    for turn in range(WARM_UP + STEPS):
        for place in (0, 1) if turn % 2 else (1, 0):
            seconds[place].append(by_turns[place](x_BD))
    plain, engine = (
        {name: statistics.median(each[name] for each in kind[WARM_UP:]) for name in kind[0]}
        for kind in seconds
    )
    return {"zero": stage, "plain": plain, "engine": engine}


def plain_loop(module: Layers) -> Callable[[Tensor], dict[str, float]]:
    optimizer = torch.optim.AdamW(parameter_groups(module, 0.01), lr=1e-4, betas=BETAS, eps=EPS, fused=True)

    def step(x_BD: Tensor) -> dict[str, float]:
        began = time.process_time()
        loss = module(x_BD)
        forward = time.process_time()
        loss.backward()
        backward = time.process_time()
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= RANKS
        whole = [
            part.view_as(gradient)
            for part, gradient in zip(flat.split([g.numel() for g in gradients]), gradients, strict=True)
        ]
        torch._foreach_copy_(gradients, whole)
        report = torch.stack([loss.detach().double(), flat.double().square().sum()])
        dist.all_reduce(report)
        norm = report.tolist()[1] ** 0.5
        torch._foreach_mul_(gradients, 1 / max(1.0, norm))
        optimizer.step()
        optimizer.zero_grad()
        return {"backward": backward - forward, "step": time.process_time() - began}

    return step


def engine_loop(module: Layers, stage: int) -> Callable[[Tensor], dict[str, float]]:
    world = World(0, RANKS, 0, torch.device("cpu"))
    engine = Engine(module, world, stage, "fp32", weight_decay=0.01, clip=1.0)

    def step(x_BD: Tensor) -> dict[str, float]:
        began = time.process_time()
        loss = engine(x_BD)
        forward = time.process_time()
        engine.backward(loss)
        backward = time.process_time()
        _, norm = engine.reduce(loss.detach().view(1))
        engine.step(1e-4, norm)
        return {"backward": backward - forward, "step": time.process_time() - began}

    return step


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))), flush=True)
