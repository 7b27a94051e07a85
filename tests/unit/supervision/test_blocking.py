"""Which rank is named, out of what the ranks say of themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsee_dist.files.process import has_ended, own_process
from unsee_dist.supervision.blocking import RankStatus, Received, blocking_ranks, lost_ranks, without_progress


def status(rank: int, collectives: int = 40, awaited: int = -1, outside: bool | None = None) -> RankStatus:
    return RankStatus(
        rank, f"n{rank // 2}", 7, "backward", 30.0, collectives, awaited, outside, own_process()
    )


@pytest.mark.parametrize(
    ("statuses", "blocking"),
    [
        # under NCCL: the fewest collectives, whatever step or phase each rank was last in
        ([status(0, 41), status(1, 40), status(2, 43)], [1]),
        ([replace(status(0, 41), step=6), status(1, 40)], [1]),
        ([status(0), status(1), status(2)], [0, 1, 2]),
        ([status(0, 40), status(1, 41), status(2, 40)], [0, 2]),
        # gloo: the count first, then who is outside
        ([status(0, 41, outside=False), status(1, 40, outside=False)], [1]),
        ([status(0, outside=False), status(1, outside=True), status(2, outside=False)], [1]),
        ([status(0, 41, outside=True), status(1, 40, outside=False)], [1]),
        # the main threads wait for a background thread
        ([status(0, awaited=5), status(1, awaited=4)], [1]),
        ([status(0, awaited=5), status(1)], [1]),  # it has not got so far
        ([status(0, 40, awaited=5), status(1, 41, awaited=4)], [0]),
        # a backend without a count
        ([replace(status(0, 0), step=8), status(1, 0)], [1]),
    ],
)
def test_who_blocks(statuses: list[RankStatus], blocking: list[int]) -> None:
    assert [one.rank for one in blocking_ranks(statuses)] == blocking


@given(st.lists(st.integers(0, 5), min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_a_rank_with_more_collectives_than_another_is_never_named(counts: list[int], random) -> None:
    statuses = [status(rank, count) for rank, count in enumerate(counts)]
    random.shuffle(statuses)
    assert {one.collectives for one in blocking_ranks(statuses)} == {min(counts)}


def test_the_sentences() -> None:
    def said(*statuses: RankStatus) -> str:
        return without_progress({one.rank: one for one in statuses}, 31.4, 30)

    assert said(status(0, 41), status(1), status(2, 41)) == (
        "rank 1 on n0 (step 7, backward) has made no progress for 31 s (guard.timeout_s = 30). Waiting for it: "
        "rank 0 on n0 (step 7, backward); rank 2 on n1 (step 7, backward)."
    )
    assert "Waiting for them: rank 1" in said(status(0), status(1, 41), status(2))
    assert said(status(0)).endswith("Waiting for it: no other rank.")
    tie = said(status(0), status(1), status(2))
    assert "issued 40 collectives, wait in the same one" in tie
    assert "the network between them (n0, n1) or a device hangs" in tie
    assert "none waits for another" in said(status(0, outside=True), status(1, outside=True))


def test_a_status_crosses_the_store_unchanged() -> None:
    sent = replace(status(3, 7, 2, True), exit_reason="it has exited")
    assert RankStatus.from_dict(json.loads(json.dumps(asdict(sent)))) == sent


def test_no_clock_of_another_host_is_in_a_status() -> None:
    now = time.time()
    assert not [value for value in asdict(status(0)).values() if isinstance(value, float) and value > now / 2]


def test_a_rank_whose_process_is_seen_to_have_ended_is_lost_early() -> None:
    ending = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    assert ending.stdin is not None
    mine = own_process()
    stat = open(f"/proc/{ending.pid}/stat").read().rpartition(")")[2].split()  # noqa: SIM115
    theirs = mine._replace(pid=ending.pid, started=stat[19])
    late = Received(replace(status(1), process=theirs), time.monotonic() - 5)

    def lost() -> list[Received]:
        return lost_ranks([late], silent_s=300, missed_s=4)

    assert not has_ended(theirs)
    assert lost() == []  # it may only be slow
    ending.stdin.close()
    until = time.monotonic() + 60
    while not has_ended(theirs) and time.monotonic() < until:  # a zombie has ended, too
        time.sleep(0.05)
    assert lost() == [late]
    ending.wait()
    assert lost() == [late]
    assert lost_ranks([replace(late, at=time.monotonic())], 300, 4) == []  # its status may be on the way
    assert lost_ranks([replace(late, at=time.monotonic() - 301)], 300, 4) != []
    said_why = replace(late, status=replace(late.status, exit_reason="it has exited"))
    assert lost_ranks([said_why], 300, 4) == []


def test_a_process_elsewhere_or_of_the_same_number_is_not_taken_for_it() -> None:
    mine = own_process()
    assert mine.machine
    assert mine.pid == os.getpid()
    assert not has_ended(mine)
    assert has_ended(mine._replace(started="1"))  # its number was given again
    assert not has_ended(mine._replace(machine="another", started="1"))
    assert not has_ended(mine._replace(machine="", started="1"))
