"""The ranks wait for each other where a signal to one of them is heard by all."""

from __future__ import annotations

import threading
import time

import pytest
from torch._C._distributed_c10d import HashStore

from unsee_dist.distributed import rendezvous
from unsee_dist.distributed.rendezvous import RendezvousStopped


def meet(size: int, coming: int, stopped_rank: int | None) -> list[str]:
    """What each of the ranks that come says; rank `stopped_rank` has got a signal."""
    store, said = HashStore(), [""] * coming

    def rank(number: int) -> None:
        try:
            rendezvous.meet(store, number, size, lambda: number == stopped_rank)
            said[number] = "met"
        except RendezvousStopped:
            said[number] = "stopped"

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(coming)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


@pytest.mark.parametrize("stopped_rank", [0, 1, 2])
def test_a_signal_to_one_rank_ends_the_wait_of_all(stopped_rank: int) -> None:
    began = time.monotonic()
    assert meet(4, 3, stopped_rank) == ["stopped"] * 3
    assert time.monotonic() - began < 4


def test_where_all_have_come_the_run_itself_stops() -> None:
    assert meet(3, 3, None) == ["met"] * 3


def test_a_rank_that_finds_nobody_to_tell_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "READ_S", 0.5)
    with pytest.raises(RendezvousStopped):
        rendezvous._wait_for_listener(
            "127.0.0.1", 9, lambda: True
        )  # the port of "discard", where nobody listens
