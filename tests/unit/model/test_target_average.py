"""The target on one process: a moving average of the masters in closed form, shown by the frozen network."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unsee_dist.distributed.masters import Shard
from unsee_dist.distributed.replica import Replica
from unsee_dist.distributed.weight_writes import WeightWrites
from unsee_dist.model.target import Target, decay_at

SIZES = {"weight": (4, 3), "bias": (5,)}


def trained() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(2)
    return {name: nn.Parameter(torch.randn(size, generator=generator)) for name, size in SIZES.items()}


def following(parameters: dict[str, nn.Parameter]) -> tuple[Target, dict[str, Tensor]]:
    """A target of whole parameters, as in ZeRO stage 0, and the network that shows it."""
    shards = [Shard(name, p, 0, p, 0, p.numel()) for name, p in parameters.items()]
    frozen: dict[str, Any] = {name: torch.zeros(size) for name, size in SIZES.items()}
    return Target(shards, Replica(shards, frozen, 0, 1, WeightWrites())), frozen


def test_it_starts_as_the_online_network_and_shows_it() -> None:
    parameters = trained()
    target, frozen = following(parameters)
    assert all(torch.equal(frozen[name], parameters[name]) for name in SIZES)
    assert target.squares().tolist()[0] == 0.0


def test_it_follows_in_closed_form_and_is_shown_after_each_step() -> None:
    """ξ_t = decay^t θ_0 + (1 - decay) Σ_k decay^(t-k) θ_k, with another decay in each step."""
    parameters = trained()
    target, frozen = following(parameters)
    expected = {name: p.detach().double() for name, p in parameters.items()}
    for decay in (0.9, 0.5, 0.99):
        for name, p in parameters.items():
            p.data.mul_(1.3).add_(0.2)
            expected[name] = decay * expected[name] + (1 - decay) * p.detach().double()
        target.follow(decay)
        for name in SIZES:
            torch.testing.assert_close(frozen[name].double(), expected[name], rtol=1e-6, atol=1e-6)


def test_what_is_written_to_the_average_is_shown_when_published() -> None:
    target, frozen = following(trained())
    for part in target.ema:
        part.fill_(2.0)
    assert not (frozen["bias"] == 2.0).any()
    target.publish()
    assert all((shown == 2.0).all() for shown in frozen.values())


def test_squares_are_those_of_the_gap_and_of_the_masters() -> None:
    parameters = trained()
    target, _ = following(parameters)
    before = torch.cat([p.detach().flatten() for p in parameters.values()]).double()
    for p in parameters.values():
        p.data.mul_(1.5)
    squares = target.squares()
    assert squares.dtype == torch.float64
    expected = [(0.25 * before.square()).sum().item(), (2.25 * before.square()).sum().item()]
    assert squares.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_rank_without_a_part_follows_and_has_no_squares() -> None:
    """Under ZeRO a rank of many may hold nothing of a small network."""
    published: list[int] = []

    class Shown:
        def publish(self, values: list[Tensor]) -> None:
            published.append(len(values))

    target = Target([], Shown())  # type: ignore[arg-type]
    target.follow(0.9)
    assert published == [0, 0]  # collective: the others wait for this rank
    assert target.squares().tolist() == [0.0, 0.0]
    assert target.squares().dtype == torch.float64


def test_the_decay_is_constant_or_rises_along_a_cosine_to_one() -> None:
    """BYOL's τ = 1 - (1 - τ_base)(cos(πk/K) + 1) / 2."""
    assert {decay_at(update, 10, 0.97, "constant") for update in range(1, 11)} == {0.97}
    decays = [decay_at(update, 8, 0.96, "cosine") for update in range(9)]
    assert decays[0] == pytest.approx(0.96)
    assert decays[2] == pytest.approx(1 - 0.04 * (math.sqrt(0.5) + 1) / 2)
    assert decays[4] == pytest.approx(0.98)
    assert decays[6] == pytest.approx(1 - 0.04 * (1 - math.sqrt(0.5)) / 2)
    assert decays[8] == 1.0
