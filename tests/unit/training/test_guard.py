"""The guard: what it says and when it acts, and that a resumed run decides as the uninterrupted one."""

from __future__ import annotations

import math
import random
from dataclasses import asdict, replace

import pytest

from unsee_dist.training.guard import Action, GuardSettings, GuardState, after_evaluation, after_step

SETTINGS = GuardSettings(skips=3, spike=8.0, collapse="stop", effective_rank=4.0, std=1e-3, evaluations=2)
HEALTHY = {"dev/effective_rank": 100.0, "dev/std": 0.5, "dev/collapsed": 0.0}


def test_skips_roll_back_once_and_then_stop() -> None:
    state = GuardState()
    nan = float("nan")
    assert after_step(SETTINGS, state, 1, nan, False)[0] is Action.GO_ON
    assert after_step(SETTINGS, state, 2, 3.0, True)[0] is Action.GO_ON  # an applied step ends the row
    actions = [after_step(SETTINGS, state, step, nan, False)[0] for step in (3, 4, 5)]
    assert actions == [Action.GO_ON, Action.GO_ON, Action.ROLL_BACK]
    state = GuardState(rollbacks=1)
    answers = [after_step(SETTINGS, state, step, nan, False) for step in (3, 4, 5)]
    assert answers[-1][0] is Action.STOP
    assert "Lower train.lr" in answers[-1][1]


def losses(seed: int, count: int) -> list[float]:
    noise = random.Random(seed)
    return [50 * math.exp(-step / 300) + noise.gauss(5, 0.5) for step in range(count)]


def test_a_jump_is_said_and_a_falling_noisy_loss_is_not() -> None:
    for seed in range(20):
        state = GuardState()
        said = [
            after_step(SETTINGS, state, step, loss, True)[1] for step, loss in enumerate(losses(seed, 600))
        ]
        assert not any(said)
        jumped = after_step(SETTINGS, state, 600, 60.0, True)
        assert "loss 60" in jumped[1]
        assert jumped[0] is Action.GO_ON
        assert state.spikes == 1


def test_a_state_from_a_checkpoint_goes_on_as_the_one_that_went_through() -> None:
    through, again = GuardState(), GuardState()
    for step, loss in enumerate(losses(3, 200)):
        after_step(SETTINGS, through, step, loss, step % 7 != 0)
    for step, loss in enumerate(losses(3, 200)):
        if step == 100:
            again = GuardState(**asdict(again))
        after_step(SETTINGS, again, step, loss, step % 7 != 0)
    assert again == through


@pytest.mark.parametrize(
    "bad",
    [
        {"dev/effective_rank": 1.2},
        {"dev/std": 1e-5},
        {"dev/collapsed": 1.0},
        {"dev/effective_rank": float("nan")},
    ],
)
def test_collapse_is_told_in_the_nth_evaluation_in_a_row(bad: dict[str, float]) -> None:
    state = GuardState()
    collapsed = HEALTHY | bad
    assert after_evaluation(SETTINGS, state, collapsed) == (Action.GO_ON, "")
    assert after_evaluation(SETTINGS, state, HEALTHY) == (Action.GO_ON, "")
    assert after_evaluation(SETTINGS, state, collapsed) == (Action.GO_ON, "")
    action, sentence = after_evaluation(SETTINGS, state, collapsed)
    assert action is Action.STOP
    assert "have collapsed" in sentence
    assert "Lower train.lr" in sentence
    warned = after_evaluation(replace(SETTINGS, collapse="warn"), GuardState(collapsed_in_row=1), collapsed)
    assert warned[0] is Action.GO_ON
    assert warned[1]
