"""The learning rate, update by update, against the formula written out; how many steps a run has."""

from __future__ import annotations

import pytest

from unsee_dist.config.sections import TrainSettings
from unsee_dist.training.schedule import encoder_waits, learning_rate, total_steps


def test_it_rises_to_the_peak_in_the_last_update_of_the_warmup_and_falls_to_the_last_share() -> None:
    rates = [learning_rate(update, 10, 2.0, 0.4) for update in range(1, 11)]
    assert rates == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 10 / 6, 8 / 6, 1.0, 4 / 6, 2 / 6])


def test_without_warmup_it_starts_at_the_peak() -> None:
    assert [learning_rate(update, 4, 8.0, 0.0) for update in (1, 2, 3, 4)] == [8.0, 6.0, 4.0, 2.0]


def test_all_of_it_may_be_warmup() -> None:
    assert [learning_rate(update, 4, 8.0, 1.0) for update in (1, 2, 3, 4)] == [2.0, 4.0, 6.0, 8.0]


def test_the_warmup_is_rounded_to_whole_updates() -> None:
    assert learning_rate(1, 10, 1.0, 0.14) == 1.0  # 1.4 updates: one
    assert learning_rate(1, 10, 1.0, 0.16) == 0.5  # 1.6 updates: two


def test_after_the_last_update_it_is_zero_and_never_less() -> None:
    assert learning_rate(11, 10, 1.0, 0.1) == 0.0
    assert learning_rate(50, 10, 1.0, 0.1) == 0.0


@pytest.mark.parametrize(
    ("steps", "epochs", "sentences", "batch", "total"),
    [
        (7, 1.0, 1000, 10, 7),  # a number wins
        (7, None, 1000, 10, 7),
        (None, 1.0, 1000, 10, 100),
        (None, 1.0, 1009, 10, 100),  # whole batches
        (None, 2.5, 100, 10, 25),
        (None, 0.001, 100, 10, 1),  # at least one
    ],
)
def test_steps_of_a_run(
    steps: int | None, epochs: float | None, sentences: int, batch: int, total: int
) -> None:
    assert total_steps(TrainSettings(steps=steps, epochs=epochs, batch=batch), sentences) == total


def test_the_encoder_waits_in_the_first_updates_only_and_not_at_all_by_default() -> None:
    assert [encoder_waits(update, 8, 0.25) for update in range(1, 9)] == [True] * 2 + [False] * 6
    assert not any(encoder_waits(update, 8, TrainSettings().projector_first) for update in range(1, 9))
