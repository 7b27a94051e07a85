"""The guard: what it says and when it acts, and that a resumed run decides as the uninterrupted one."""

from __future__ import annotations

import math
import random
from dataclasses import asdict

import pytest

from unsee_dist.config.sections import GuardSettings
from unsee_dist.training.guard import Action, GuardState, after_evaluation, after_step, healthy, with_verdict

SETTINGS = GuardSettings(skips=3, spike=8.0, collapse="stop", effective_rank=4.0, std=1e-3, evaluations=2)
HEALTHY = {"dev/effective_rank": 100.0, "dev/std": 0.5, "dev/collapsed": 0.0}


def test_skips_roll_back_once_and_then_stop() -> None:
    state = GuardState()
    nan = float("nan")
    assert after_step(SETTINGS, state, 1, nan, False)[0] is Action.CONTINUE
    assert after_step(SETTINGS, state, 2, 3.0, True)[0] is Action.CONTINUE  # an applied step ends the row
    actions = [after_step(SETTINGS, state, step, nan, False)[0] for step in (3, 4, 5)]
    assert actions == [Action.CONTINUE, Action.CONTINUE, Action.ROLL_BACK]
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
        sentences = [
            after_step(SETTINGS, state, step, loss, True)[1] for step, loss in enumerate(losses(seed, 600))
        ]
        assert not any(sentences)
        jumped = after_step(SETTINGS, state, 600, 60.0, True)
        assert "loss 60" in jumped[1]
        assert jumped[0] is Action.CONTINUE
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
    assert after_evaluation(SETTINGS, state, collapsed) == (Action.CONTINUE, "")
    assert after_evaluation(SETTINGS, state, HEALTHY) == (Action.CONTINUE, "")
    assert after_evaluation(SETTINGS, state, collapsed) == (Action.CONTINUE, "")
    action, sentence = after_evaluation(SETTINGS, state, collapsed)
    assert action is Action.STOP
    assert "have collapsed" in sentence
    assert "Lower train.lr" in sentence
    warned = after_evaluation(
        SETTINGS.model_copy(update={"collapse": "warn"}), GuardState(collapsed_in_row=1), collapsed
    )
    assert warned[0] is Action.CONTINUE
    assert warned[1]


def test_the_running_mean_and_variance_are_those_of_the_formula() -> None:
    """Plain averages of the first losses, exponential ones over about 100 afterwards."""
    state, mean, variance = GuardState(), 0.0, 0.0
    for seen, loss in enumerate(losses(5, 300)):
        weight = max(0.01, 1 / (seen + 1))
        distance = loss - mean
        mean, variance = mean + weight * distance, (1 - weight) * (variance + weight * distance**2)
        after_step(SETTINGS, state, seen + 1, loss, True)
        assert (state.seen, state.mean, state.variance) == (
            seen + 1,
            pytest.approx(mean),
            pytest.approx(variance),
        )
    plain = GuardState()
    for step, loss in enumerate((1.0, 2.0, 6.0)):
        after_step(SETTINGS, plain, step, loss, True)
    assert plain.mean == pytest.approx(3.0)
    assert plain.variance == pytest.approx(14 / 3)


@pytest.mark.parametrize(
    ("seen", "loss", "jumped"), [(49, 1000.0, False), (50, 18.1, True), (50, 17.9, False)]
)
def test_a_spike_is_one_above_the_bound_and_not_before_the_mean_is_known(
    seen: int, loss: float, jumped: bool
) -> None:
    """Mean 10, deviation 1: the bound of 8 deviations is 18."""
    state = GuardState(seen=seen, mean=10.0, variance=1.0)
    action, sentence = after_step(SETTINGS, state, 51, loss, True)
    assert action is Action.CONTINUE
    assert bool(sentence) is jumped
    assert state.spikes == jumped
    if jumped:
        assert "step 51: loss 18.1 is 8 deviations above its running mean 10" in sentence
        assert "guard.spike = 8" in sentence


def test_a_low_loss_is_no_spike() -> None:
    assert after_step(SETTINGS, GuardState(seen=60, mean=10.0, variance=1.0), 61, -100.0, True) == (
        Action.CONTINUE,
        "",
    )


def test_a_skip_is_said_with_its_step_and_its_loss_and_the_last_one_acts() -> None:
    state = GuardState()
    action, sentence = after_step(SETTINGS, state, 7, float("inf"), False)
    assert (action, state.skips_in_row) == (Action.CONTINUE, 1)
    assert sentence == "step 7 skipped on all ranks: loss or gradient is not finite (loss inf)"
    state.skips_in_row = 2
    action, sentence = after_step(SETTINGS, state, 8, float("nan"), False)
    assert action is Action.ROLL_BACK
    assert (
        sentence
        == "3 steps in a row were not finite (guard.skips = 3): returning to the last checkpoint, once, and going on after "
        "step 8"
    )


def test_overflows_in_fp16_are_no_skips_in_a_row() -> None:
    """A loss scale of 2^16 may be halved many times before it fits."""
    state = GuardState()
    sentences = [after_step(SETTINGS, state, step, 3.0, False, overflow=True) for step in range(1, 20)]
    assert {action for action, _ in sentences} == {Action.CONTINUE}
    assert state.skips_in_row == 0
    assert (
        sentences[6][1]
        == "step 7 skipped on all ranks: its gradients overflow in fp16, the loss scale is halved"
    )


@pytest.mark.parametrize(("rank", "std", "collapsed", "sound"), [
    (4.0, 1e-3, 0.0, True), (3.999, 1e-3, 0.0, False), (4.0, 0.99e-3, 0.0, False), (4.0, 1e-3, 1.0, False),
])  # fmt: skip
def test_the_bounds_themselves_are_healthy(rank: float, std: float, collapsed: float, sound: bool) -> None:
    scores = {"dev/effective_rank": rank, "dev/std": std, "dev/collapsed": collapsed}
    assert healthy(SETTINGS, scores) is sound
    assert healthy(SETTINGS, {"dev/effective_rank": rank, "dev/std": std}) is (sound or bool(collapsed))


def test_the_sentence_about_a_collapse_has_the_numbers() -> None:
    state = GuardState(collapsed_in_row=1)
    _, sentence = after_evaluation(SETTINGS, state, {"dev/effective_rank": 1.25, "dev/std": 0.0005})
    assert (
        "effective rank 1.2 (guard.effective_rank = 4), std 0.0005 (guard.std = 0.001) in 2 evaluations"
        in sentence
    )
    assert state.collapsed_in_row == 2


def test_a_loss_that_stands_still_is_no_spike() -> None:
    """Its deviation is 0, and a step on the mean is not above it."""
    state = GuardState()
    sentences = [after_step(SETTINGS, state, step, 3.0, True)[1] for step in range(200)]
    assert not any(sentences)
    assert state.spikes == 0


@pytest.mark.parametrize(("variance", "loss", "deviations"), [(4.0, 50.0, 20), (0.25, 20.0, 20)])
def test_a_spike_is_measured_in_deviations(variance: float, loss: float, deviations: int) -> None:
    state = GuardState(seen=60, mean=10.0, variance=variance)
    _, sentence = after_step(SETTINGS, state, 61, loss, True)
    assert f"loss {loss:g} is {deviations} deviations above its running mean 10" in sentence


def test_the_bound_of_a_spike_grows_with_the_deviation() -> None:
    """Deviation 4: the bound is 10 + 8 · 4 = 42."""
    for loss, jumped in ((41.0, False), (43.0, True)):
        state = GuardState(seen=60, mean=10.0, variance=16.0)
        assert bool(after_step(SETTINGS, state, 61, loss, True)[1]) is jumped


def test_spikes_are_counted() -> None:
    state = GuardState(seen=60, mean=10.0, variance=1.0, spikes=4)
    after_step(SETTINGS, state, 61, 1000.0, True)
    assert state.spikes == 5


def test_a_stop_says_what_to_change_and_what_is_left() -> None:
    _, stopped = after_step(SETTINGS, GuardState(skips_in_row=2, rollbacks=1), 9, math.nan, False)
    assert "again after returning to a checkpoint" in stopped
    assert stopped.endswith("or write parallel.precision=fp32. The earlier checkpoints are unchanged.")
    _, collapsed = after_evaluation(SETTINGS, GuardState(collapsed_in_row=1), HEALTHY | {"dev/std": 0.0})
    assert collapsed.endswith("or use target.kind=ema, in another run.dir; there is no `best/`.")
    _, later = after_evaluation(SETTINGS, GuardState(collapsed_in_row=1), HEALTHY | {"dev/std": 0.0}, 40)
    assert later.endswith("`best/` is of step 40, before the collapse.")


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [({}, 0.0), ({"dev/std": 0.0}, 1.0), ({"dev/effective_rank": 1.0}, 1.0), ({"dev/std": math.nan}, 1.0)],
)
def test_the_bounds_of_the_guard_are_the_one_verdict(measured: dict[str, float], verdict: float) -> None:
    assert with_verdict(SETTINGS, HEALTHY | measured)["dev/collapsed"] == verdict
