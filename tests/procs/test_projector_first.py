"""train.projector_first: while the encoder waits no bit of it changes, and N ranks under any ZeRO stage equal one plain process."""

from __future__ import annotations

import pytest
import torch
from oracle import Case, oracle, running, weight_error
from processes import run

CASE, HELD, STEPS = Case("vicreg", dropout=0.1), 3, 6


def held_and_then_trained(rank: int, size: int, waiting: str) -> list[tuple[bool, bool, float]]:
    """By stage: whether the encoder is bit for bit where it began after the held steps, whether the projector has moved by
    then, and how far the weights are from the oracle's in the end."""
    truth, found = oracle(CASE, STEPS, HELD), []
    for stage in range(4):
        ours = running(CASE, rank, size, stage, waiting=waiting)
        began = ours.whole("master")
        for step in range(1, STEPS + 1):
            ours.engine.hold(step <= HELD)
            assert ours.train_step(step).applied
            if step == HELD:
                now = ours.whole("master")
        equal = {name: torch.equal(began[name], now[name]) for name in began}
        encoder = all(same for name, same in equal.items() if name.startswith("online."))
        projector = not any(same for name, same in equal.items() if name.startswith("projector."))
        found.append((encoder, projector, weight_error(ours.whole("master"), truth.weights)))
    return found


@pytest.mark.parametrize("size", [1, 2])
def test_the_encoder_waits_to_the_bit_and_then_learns_as_in_one_process(size: int) -> None:
    for encoder, projector, error in run(held_and_then_trained, size, "online")[0]:
        assert encoder
        assert projector
        assert error < 2e-5


def test_an_encoder_that_does_not_wait_fails_the_law() -> None:
    for encoder, projector, error in run(held_and_then_trained, 2, "")[0]:
        assert not encoder
        assert projector
        assert error > 1e-3
