"""Lane and turn of every position, against a count position by position."""

from __future__ import annotations

import numpy as np
import pytest

from unsee_dist.data.corpus.lanes import LANE_BLOCKS, LANES, Lanes, number_of_lanes

BATCH = 60
# Of several corpora each has some places of the batch, in cycles of several steps: here 50 of 60 places, twice or three times.
OF_A_MIXTURE = np.random.default_rng(3).permutation(np.repeat(np.arange(3, 53), np.arange(50) % 2 + 2))


def _lanes_by_count(places: np.ndarray, number: int) -> list[int]:
    """The lane of each place: its share of the positions that have a place before it; -1 without a position."""
    lanes = []
    for place in range(BATCH):
        before = sum(int(each) < place for each in places)
        lanes.append(before * number // len(places) if place in places else -1)
    return lanes


@pytest.mark.parametrize("number", [1, 7, 50])
@pytest.mark.parametrize("places", [np.arange(BATCH), OF_A_MIXTURE], ids=["one corpus", "a mixture"])
def test_lane_and_turn_are_those_that_one_counts(places: np.ndarray, number: int) -> None:
    lanes, expected = Lanes(places, BATCH, 10**6, number), _lanes_by_count(places, number)
    assert lanes.lane_of.tolist() == expected
    turns = [0] * number
    for position in range(3 * len(places)):  # three cycles
        assert lanes.before(position).tolist() == turns
        lane = expected[places[position % len(places)]]
        assert [int(each[0]) for each in lanes.find(np.array([position]))] == [lane, turns[lane]]
        turns[lane] += 1
    for first, last in ((0, 3), (0, BATCH), (5, 20), (52, BATCH)):
        assert lanes.served(first, last).tolist() == sorted(
            {each for each in expected[first:last] if each >= 0}
        )


def test_the_number_of_lanes_is_limited_by_places_by_blocks_and_by_itself() -> None:
    assert number_of_lanes(50, 10**6) == 50
    assert number_of_lanes(50, 3 * LANE_BLOCKS) == 3
    assert number_of_lanes(10**5, 10**6) == LANES
    assert number_of_lanes(50, 0) == 1
    assert Lanes(OF_A_MIXTURE, BATCH, 10**6).number == 50  # the places that have a position, of 60
    assert Lanes(OF_A_MIXTURE, BATCH, 3 * LANE_BLOCKS).number == 3


def test_a_lane_without_a_position_is_one_of_the_number() -> None:
    lanes = Lanes(np.arange(2), 2, 10**6, 5)
    assert lanes.lane_of.tolist() == [0, 2]
    assert lanes.before(3).tolist() == [2, 0, 1, 0, 0]


def test_without_a_position_there_is_no_lane_to_find() -> None:
    assert Lanes(np.empty(0, dtype=np.int64), 4, 8, 1).lane_of.tolist() == [-1] * 4
