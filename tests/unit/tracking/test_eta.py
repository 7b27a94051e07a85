"""The time left counts what is left: steps, evaluations and saves."""

from __future__ import annotations

import pytest

from unsee_dist.tracking.eta import Eta, pauses


@pytest.mark.parametrize(("steps", "every"), [(10, 1), (10, 3), (12, 3), (5, 7), (100, 9)])
def test_pauses_are_those_of_the_loop(steps: int, every: int) -> None:
    taken = {step for step in range(1, steps + 1) if step % every == 0 or step == steps}
    for step in range(1, steps + 1):
        assert pauses(step, steps, every) == sum(each >= step for each in taken)


@pytest.mark.parametrize(("steps", "evaluate", "save"), [(40, 10, 5), (41, 9, 40), (30, 100, 7)])
def test_the_time_left_is_that_of_a_run_whose_parts_take_their_time(
    steps: int, evaluate: int, save: int
) -> None:
    step_s, evaluation_s, save_s = 2.0, 30.0, 7.0
    eta = Eta(steps, evaluate, save)
    eta.took("evaluation", evaluation_s)  # of the untrained encoder
    left = [0.0] * (steps + 1)  # from the end of a step, its own evaluation and save still to come
    for step in range(steps, 0, -1):
        after = 0.0 if step == steps else step_s + left[step + 1]
        pause = (evaluation_s if step % evaluate == 0 or step == steps else 0.0) + (
            save_s if step % save == 0 or step == steps else 0.0
        )
        left[step] = pause + after
    saved = False
    for step in range(1, steps + 1):
        eta.took("step", step_s)
        unknown = 0.0 if saved else pauses(step, steps, save) * save_s  # none was measured yet
        assert eta.seconds(step) == pytest.approx(left[step] - unknown)
        if step % save == 0 or step == steps:
            eta.took("save", save_s)
            saved = True


def test_the_first_step_of_a_start_counts_only_until_there_is_another() -> None:
    eta = Eta(10)
    eta.took("step", 60.0)
    assert eta.seconds(1) == pytest.approx(540)
    eta.took("step", 1.0)
    assert eta.seconds(2) == pytest.approx(8)
    for _ in range(300):
        eta.took("step", 3.0)
    assert eta.seconds(9) == pytest.approx(3, rel=0.02)
