"""Training in bf16 and fp16 by plain torch: fp32 masters, low-precision weights, a loss scale. No engine, no ranks."""

from __future__ import annotations

from typing import Any

import torch
from oracle import CLIP, DECAY, DEVICE, LR, WEIGHT_DECAY, Case, Oracle, batch, model, on_cpu
from torch import nn

from unsee_dist.distributed.engine import parameter_groups
from unsee_dist.distributed.reduce import Reduction

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


FIRST_SCALE = 2.0**13  # Barlow Twins' gradients overflow in fp16 at it, and after a few halvings do not


def low_precision_oracle(case: Case, steps: int, precision: str) -> Oracle:
    """The losses and gradient norms of `steps` steps on the whole batch, and masters and EMA after them. A step whose gradients
    overflow halves the scale, and changes nothing."""
    module = model(case, Reduction(), Reduction())
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    frozen = {n: p for n, p in module.frozen().items() if n in trained}
    masters = {n: nn.Parameter(p.detach().clone()) for n, p in trained.items()}
    groups = parameter_groups(module, WEIGHT_DECAY)
    by_parameter = {p: masters[n] for n, p in trained.items()}
    grouped: list[dict[str, Any]] = [g | {"params": [by_parameter[p] for p in g["params"]]} for g in groups]
    optimizer = torch.optim.AdamW(grouped, lr=LR)
    ema = {n: masters[n].detach().clone() for n in frozen}
    for parameter in module.parameters():
        parameter.data = parameter.data.to(DTYPES[precision])
    scale = FIRST_SCALE if precision == "fp16" else 1.0
    seen = Oracle([], [], [], {}, {})
    for step in range(1, steps + 1):
        loss, _ = module(batch(step).to(DEVICE).micro_batches)
        module.zero_grad()
        (loss * scale).backward()
        for name, master in masters.items():
            gradient = trained[name].grad
            master.grad = torch.zeros_like(master) if gradient is None else gradient.float() / scale
        norm = float(nn.utils.clip_grad_norm_(list(masters.values()), CLIP))
        seen.losses.append(loss.item())
        seen.norms.append(norm)
        finite = norm < float("inf")
        if hasattr(module.objective, "commit"):
            module.objective.commit() if finite else module.objective.discard()
        if not finite:
            scale /= 2
            continue
        optimizer.step()
        with torch.no_grad():
            for name, master in masters.items():
                trained[name].copy_(master)
            for name, average in ema.items():
                average.lerp_(masters[name], 1 - DECAY)
                frozen[name].copy_(average)
    seen.weights = {n: on_cpu(p).flatten() for n, p in masters.items()}
    seen.ema = {n: on_cpu(p).flatten() for n, p in ema.items()}
    return seen
