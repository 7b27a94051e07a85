"""The clock of `unsee bench`: phases end where the next begins, and only calls in forward count for a network."""

from __future__ import annotations

import pytest
import torch

from unsee_dist.bench.step import Clock
from unsee_dist.supervision import phases


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that moves one second each time it is read."""
    made, seconds = Clock(torch.device("cpu")), iter(range(1000))
    monkeypatch.setattr(made, "now", lambda: float(next(seconds)))
    return made


def test_the_stages_add_up_to_the_step(clock: Clock) -> None:
    clock.begin(-3.0)  # the step began three seconds before
    for phase in ("forward", "backward", "finish", "update", "ema", "log", "end"):
        clock.enter(phase, 1)
    assert clock.spent == {
        "wait": 3.0,
        "backward": 1.0,
        "finish": 1.0,
        "optimizer": 1.0,
        "ema": 1.0,
        "logging": 1.0,
    }


def test_a_network_is_timed_in_forward_alone(clock: Clock) -> None:
    network = torch.nn.Linear(2, 2)
    clock.watch({"online": network, "target": None})
    clock.begin(0.0)
    clock.enter("forward", 1)
    network(torch.ones(1, 2))
    network(torch.ones(1, 2))
    clock.enter("backward", 1)
    network(torch.ones(1, 2))  # encoded again
    assert clock.spent["online"] == 2.0


def test_an_observer_hears_each_phase_and_then_no_more() -> None:
    heard: list[tuple[str, int]] = []
    with phases.observing(lambda phase, step: heard.append((phase, step))):
        phases.enter_phase("forward", 3)
        phases.enter_phase("backward")
    phases.enter_phase("start", 0)
    assert heard == [("forward", 3), ("backward", 3)]
