"""The EMA target under ZeRO: its closed form in low-precision engines, and the ways it is known to go wrong."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from oracle import DECAY, LR, Case, Running, running, weight_error
from processes import run

from unsee_dist.model.target import decay_at
from unsee_dist.training.schedule import learning_rate


def follows_the_masters(rank: int, size: int, stages: tuple[int, ...], steps: int) -> None:
    """ξ_t = decay^t θ_0 + (1 - decay) Σ_k decay^(t-k) θ_k over the fp32 masters, and the network shows ξ rounded once."""
    for stage in stages:
        ours = running(Case("vicreg", both=True, dropout=0.1), rank, size, stage, "bf16")
        followed = list(ours.whole("ema"))
        closed = {name: ours.whole("master")[name].double() for name in followed}
        for step in range(1, steps + 1):
            assert ours.train_step(step, lr=1e-4).applied
            masters = ours.whole("master")
            for name in followed:
                closed[name] = DECAY * closed[name] + (1 - DECAY) * masters[name].double()
        ema, published = ours.whole("ema"), ours.published()
        for name in followed:
            assert (ema[name] - closed[name]).abs().max() < 1e-6, (stage, name)
            assert torch.equal(published[name], ema[name].bfloat16().float()), (stage, name)


def test_ema_equals_its_closed_form_in_bf16_engines() -> None:
    run(follows_the_masters, 2, (0, 1, 2, 3), 20)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_ema_equals_its_closed_form_over_a_thousand_steps(stage: int) -> None:
    run(follows_the_masters, 2, (stage,), 1000, timeout_s=500)


def test_an_ema_kept_in_bf16_stands_still() -> None:
    """Negative control: at decay 0.999 bf16 rounds nearly all of the movement away."""
    fp32, bf16 = torch.ones(4), torch.ones(4, dtype=torch.bfloat16)
    for _ in range(1000):
        fp32.lerp_(torch.full((4,), 1.1), 1e-3)
        bf16.lerp_(torch.full((4,), 1.1, dtype=torch.bfloat16), 1e-3)
    assert fp32[0] > 1.06
    assert bf16[0] == 1.0


def deepspeed_chats_way(rank: int, size: int) -> float:
    """DeepSpeed-Chat's moving_average: gather without modifier_rank, write, leave. Returns how far the target moved."""
    import deepspeed

    ours = running(Case("vicreg"), rank, size, 3)
    before = ours.published()
    ours.target = None  # nobody else writes
    for step in (1, 2, 3):
        ours.train_step(step)
        module: Any = ours.engine.module
        pairs = list(zip(module.online.parameters(), module.target.parameters(), strict=True))
        for online, target in pairs:
            with torch.no_grad(), deepspeed.zero.GatheredParameters([online, target]):
                target.data.copy_(torch.lerp(online.data, target.data, DECAY))
    large = {n for n, p in ours.engine.module.frozen().items() if not p.ds_persist}
    after = ours.published()
    return max((float((after[n] - before[n]).abs().max()) for n in large), default=0.0)


def gathered_all(rank: int, size: int) -> float:
    """The same three steps in our way, for comparison."""
    ours = running(Case("vicreg"), rank, size, 3)
    before = ours.published()
    for step in (1, 2, 3):
        ours.train_step(step)
    return weight_error(ours.published(), before)


def test_deepspeed_chats_moving_average_is_discarded_under_zero_3() -> None:
    assert run(gathered_all, 2)[0] > 1e-4
    moved = run(deepspeed_chats_way, 2)[0]
    assert moved == 0.0, (
        f"moved by {moved}: deepspeed now keeps the write, so this control has to be rewritten"
    )


def with_pooler(rank: int, size: int, freeze: bool) -> list[float]:
    """How far five steps in stages 0-3 move a pooler that takes part in no loss."""
    from oracle import WIDTH, model
    from torch import nn

    from unsee_dist.distributed.engine import Engine
    from unsee_dist.distributed.reduce import Reduction
    from unsee_dist.distributed.world import World

    ends = []
    for stage in range(4):
        reduction = Reduction(rank, size)
        module = model(Case("vicreg", ema=False, both=True), reduction, reduction)
        module.online.extra = nn.Linear(WIDTH, WIDTH).requires_grad_(not freeze)
        before = module.online.extra.weight.detach().clone().flatten()
        engine = Engine(
            module, World(rank, size, rank, torch.device("cpu")), stage, "fp32", weight_decay=0.5, clip=1.0
        )
        ours = Running(engine, None)
        for step in range(1, 6):
            ours.train_step(step, lr=10 * LR)
        ends.append(float((ours.whole("master").get("online.extra.weight", before) - before).abs().max()))
    return ends


def test_zero_moves_a_trainable_pooler() -> None:
    """Why load_encoder drops it: ZeRO fills a missing gradient with zeros, so weight decay moves what plain torch
    leaves alone (its AdamW skips a parameter without gradient)."""
    assert min(run(with_pooler, 2, False)[0][1:]) > 1e-3
    assert run(with_pooler, 2, True)[0] == [0.0] * 4


def test_schedules() -> None:
    rates = [learning_rate(update, 100, 1.0, 0.1) for update in range(1, 101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[99] == pytest.approx(1 / 90)
    assert max(abs(a - b) for a, b in pairwise(rates[10:])) == pytest.approx(1 / 90)
    assert decay_at(1, 100, 0.99, "constant") == 0.99
    assert decay_at(100, 100, 0.99, "cosine") == 1.0
    assert decay_at(50, 100, 0.99, "cosine") == pytest.approx(0.995)
