"""The projection of an overlapped reduction, beside a clock that sends bucket after bucket."""

from __future__ import annotations

import pytest

from unsee_dist.bench import overlap


def simulated(sending_s: float, backward_s: float, buckets: int, micro_batches: int) -> float:
    """Each bucket is sent when it is whole and the network is free; seconds after the end of the backward."""
    last_part, free = backward_s / micro_batches, 0.0
    for bucket in range(1, buckets + 1):
        whole = backward_s - last_part + last_part * bucket / buckets
        free = max(free, whole) + sending_s / buckets
    return free - backward_s


@pytest.mark.parametrize("sending_s", [0.01, 0.09, 0.2])
@pytest.mark.parametrize("buckets", [1, 2, 4, 16])
@pytest.mark.parametrize("micro_batches", [1, 4, 32])
def test_what_is_not_hidden_is_what_a_clock_says(sending_s: float, buckets: int, micro_batches: int) -> None:
    left = overlap.exposed_s(sending_s, 0.091, buckets, micro_batches)
    assert left == pytest.approx(simulated(sending_s, 0.091, buckets, micro_batches), rel=1e-9)


def test_one_bucket_hides_nothing() -> None:
    assert overlap.exposed_s(0.05, 0.09, 1) == 0.05


def test_the_projection_is_below_todays_step_and_cuts_take_most_of_it_back() -> None:
    for row in overlap.projection([8, 1024]):
        assert row["overlapped_ms"] < row["overlapped_cut_ms"] < row["ms"], row
