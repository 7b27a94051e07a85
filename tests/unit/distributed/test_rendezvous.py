"""The ranks wait for each other where a signal to one of them is heard by all."""

from __future__ import annotations

import socket
import threading
import time
from datetime import timedelta

import pytest
from torch._C._distributed_c10d import HashStore

from unsee_dist.distributed import rendezvous
from unsee_dist.distributed.placement import Place, agree
from unsee_dist.distributed.process_group import lost_rank_is_transient
from unsee_dist.distributed.rendezvous import RendezvousStopped
from unsee_dist.distributed.shared_errors import SharedUserError
from unsee_dist.errors import ExitCode, TransientError, UserError, exit_code_of


def meet(size: int, coming: int, stopped_rank: int | None) -> list[str]:
    """What each of the ranks that come says; rank `stopped_rank` has got a signal."""
    store, messages = HashStore(), [""] * coming

    def rank(number: int) -> None:
        try:
            rendezvous.meet(store, number, size, lambda: number == stopped_rank)
            messages[number] = "met"
        except RendezvousStopped:
            messages[number] = "stopped"

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(coming)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return messages


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


def never() -> bool:
    return False


def test_a_rank_that_never_comes_is_a_passing_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "TIMEOUT", timedelta(seconds=0.3))
    with pytest.raises(TransientError, match="1 of 2 ranks have not come") as met:
        rendezvous.meet(HashStore(), 0, 2, never)
    assert exit_code_of(met.value) is ExitCode.TRANSIENT


def test_a_known_host_that_does_not_answer_is_a_passing_fault() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and does not listen
        port = free.getsockname()[1]
        with pytest.raises(TransientError, match=f"nobody listens at .*127.0.0.1:{port}"):
            rendezvous._wait_for_listener("127.0.0.1", port, never, timedelta(seconds=0.3))


@pytest.mark.parametrize("host", ["no host", "a..b"])
def test_a_host_that_cannot_be_is_a_mistake(host: str) -> None:
    with pytest.raises(UserError, match=f"MASTER_ADDR:MASTER_PORT = {host}:9 cannot be reached") as met:
        rendezvous._wait_for_listener(host, 9, never, timedelta(seconds=5))
    assert exit_code_of(met.value) is ExitCode.MISTAKE


def test_a_name_server_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def no_answer(*_: object, **__: object) -> None:
        asked.append(1)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "create_connection", no_answer)
    with pytest.raises(TransientError):
        rendezvous._wait_for_listener("node-1", 9, never, timedelta(seconds=0.5))
    assert len(asked) > 1


def test_a_rank_that_has_come_and_is_gone_is_a_passing_fault() -> None:
    store = HashStore()
    store.set_timeout(timedelta(seconds=0.3))
    with (
        pytest.raises(TransientError, match="a rank is gone before training has begun"),
        lost_rank_is_transient(),
    ):
        agree(store, Place(0, "here", "gloo", None), 2)


def test_a_device_that_a_rank_may_not_use_stays_a_mistake() -> None:
    with pytest.raises(SharedUserError, match="no GPU"), lost_rank_is_transient():
        agree(HashStore(), Place(0, "here", "gloo", None, "no GPU"), 1)
