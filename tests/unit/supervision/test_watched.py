"""Which ranks read whose statuses: all of few, and of many a few read all."""

from __future__ import annotations

from itertools import pairwise

import pytest

from unsee_dist.supervision.watchdog import ALL_WATCH, WATCHERS, everyone_but, watched


@pytest.mark.parametrize("size", [1, 2, 3, ALL_WATCH])
def test_of_few_ranks_each_reads_all(size: int) -> None:
    assert [watched(rank, size) for rank in range(size)] == [everyone_but(rank, size) for rank in range(size)]


@pytest.mark.parametrize("size", [ALL_WATCH + 1, 100, 1000, 1024, 4096])
def test_of_many_ranks_several_read_all_and_each_of_the_others_reads_those(size: int) -> None:
    watchers = [rank for rank in range(size) if len(watched(rank, size)) == size - 1]
    assert WATCHERS // 2 < len(watchers) <= WATCHERS
    assert watchers[0] == 0, "the rank that may serve the store is seen by all"
    for rank in set(range(size)) - set(watchers):
        assert watched(rank, size) == watchers
    spread = [later - earlier for earlier, later in pairwise(watchers)]
    assert min(spread) >= size // (2 * WATCHERS), "not all on one host"


def test_what_a_period_asks_of_the_store_grows_with_the_ranks_and_not_with_their_square() -> None:
    read = {size: sum(len(watched(rank, size)) for rank in range(size)) for size in (64, 1024)}
    assert read == {64: 64 * 63, 1024: 16 * 1023 + 1008 * 16}
    assert read[1024] < 1024 * 1023 / 30
