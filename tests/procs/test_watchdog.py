"""The watchdog names the rank that blocks the others, on real ranks over gloo that behave like ranks over NCCL: a collective
is issued, and the rank waits for it outside torch.distributed."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import torch.distributed as dist
from procs.processes import AT_IMPORT, _context

from unsee_dist.errors import ExitCode
from unsee_dist.supervision.phases import enter_phase

TIMEOUT_S = 6.0
HOST = socket.gethostname()
Scenario = Callable[[int, Any], None]  # (rank, its watchdog)


def launch(
    scenario: Scenario, folder: Path, ranks: int = 3, timeout_s: float = TIMEOUT_S, relayed: bool = False
) -> list[Any]:
    """Processes that join a world, start a watchdog and play the scenario. relayed: the first asks the store for the others."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = _context("cpu")
    group = [
        context.Process(target=_rank, args=(scenario, rank, ranks, port, folder, timeout_s, relayed))
        for rank in range(ranks)
    ]
    for process in group:
        process.start()
    return group


def printed_by(scenario: Scenario, folder: Path, ends: tuple[int, ...] = (0, 1, 2), **more: Any) -> str:
    """What the ranks in `ends` said when they had ended with code 3."""
    group = launch(scenario, folder, **more)
    try:
        for rank in ends:
            group[rank].join(120)
        printed = "\n".join((folder / f"{rank}.err").read_text() for rank in range(len(group)))
        assert [group[rank].exitcode for rank in ends] == [ExitCode.RANK_LOST] * len(ends), printed
        return printed
    finally:
        for process in group:
            process.kill()
            process.join()


def _rank(  # noqa: PLR0913  (all that a process is given)
    scenario: Scenario, rank: int, ranks: int, port: int, folder: Path, timeout_s: float, relayed: bool
) -> None:  # in a process of its own
    os.dup2(os.open(folder / f"{rank}.err", os.O_WRONLY | os.O_CREAT), 2)
    meeting = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
    os.environ.update(
        AT_IMPORT | {key: str(value) for key, value in meeting.items()}, MASTER_ADDR="127.0.0.1"
    )
    from unsee_dist.distributed import sockets
    from unsee_dist.distributed.process_group import join_world
    from unsee_dist.supervision.watchdog import Watchdog

    torch.set_num_threads(1)
    sockets.RELAYED = 1 if relayed else 256
    watchdog = Watchdog(join_world(), timeout_s)
    watchdog.start()
    if rank == 0:
        now = time.time
        time.time = lambda: now() - 3600  # a clock an hour behind the others'
    enter_phase("backward", 7)
    scenario(rank, watchdog)


def issue(group: dist.ProcessGroup | None = None) -> Any:
    return dist.all_reduce(torch.ones(2), group=group, async_op=True)


def wait_on_the_host(work: Any) -> None:
    """As `.tolist()` waits for a device: no frame of torch.distributed is on the stack, and a peer that is gone raises
    nothing."""
    while not (work.is_completed() and work.is_success()):
        time.sleep(0.05)


def endless_loop() -> NoReturn:
    while True:
        time.sleep(0.1)


def one_issues_fewer(rank: int, _watchdog: Any) -> None:
    for _ in range(5):
        wait_on_the_host(issue())
    if rank == 1:
        endless_loop()
    works = [issue() for _ in range(1 + rank)]  # the others run ahead, one further than the other
    wait_on_the_host(works[-1])


def test_the_rank_that_has_issued_the_fewest_collectives_is_named(tmp_path: Path) -> None:
    printed = printed_by(one_issues_fewer, tmp_path)
    assert f"rank 1 on {HOST} (step 7, backward) has made no progress for" in printed
    assert (
        f"Waiting for it: rank 0 on {HOST} (step 7, backward); rank 2 on {HOST} (step 7, backward)."
        in printed
    )
    assert "endless_loop" in printed  # its own stack
    assert printed.count("has made no progress") == 1


def none_issues_fewer(_rank: int, watchdog: Any) -> None:
    wait_on_the_host(issue())
    watchdog._frames_tell = False  # as under NCCL
    endless_loop()


def test_nobody_is_named_when_all_wait_in_the_same_collective(tmp_path: Path) -> None:
    printed = printed_by(none_issues_fewer, tmp_path)
    assert "All ranks have issued 1 collectives, wait in the same one" in printed
    assert f"the network between them ({HOST}) or a device hangs" in printed
    assert "Waiting for it" not in printed


def background_thread_hangs(rank: int, _watchdog: Any) -> None:
    from unsee_dist.supervision.phases import register_background_thread, waiting_for

    group = dist.new_group(backend="gloo")
    register_background_thread("checkpoint", group)

    def save() -> None:
        wait_on_the_host(issue(group))
        if rank == 2:
            endless_loop()  # a disk that hangs
        wait_on_the_host(issue(group))

    thread = threading.Thread(target=save, name="checkpoint", daemon=True)
    thread.start()
    with waiting_for("checkpoint"):
        thread.join()


def test_a_background_thread_that_the_others_wait_for_is_named(tmp_path: Path) -> None:
    printed = printed_by(background_thread_hangs, tmp_path)
    assert f"rank 2 on {HOST} (step 7, backward) has made no progress for" in printed


def one_dies(rank: int, _watchdog: Any) -> None:
    wait_on_the_host(issue())
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    endless_loop()  # where nothing raises


def test_a_rank_that_died_is_named_long_before_the_timeout(tmp_path: Path) -> None:
    begun = time.monotonic()
    printed = printed_by(one_dies, tmp_path, ends=(0, 2), timeout_s=300)
    assert time.monotonic() - begun < 100
    assert f"rank 1 on {HOST} (step " in printed
    assert "Its process has ended." in printed


def the_first_is_stopped(rank: int, _watchdog: Any) -> None:
    wait_on_the_host(issue())
    if rank == 0:
        time.sleep(3)  # until the others have its status
        os.kill(os.getpid(), signal.SIGSTOP)  # it serves the store
    endless_loop()


def test_a_stopped_rank_that_serves_the_store_is_named(tmp_path: Path) -> None:
    printed = printed_by(the_first_is_stopped, tmp_path, ends=(1, 2))
    assert "The ranks' store has not answered for" in printed
    assert re.search(rf"rank 0 on {HOST} \(step \d, \w+\), or the launcher on the first host", printed)


def all_are_paused(rank: int, watchdog: Any) -> None:
    wait_on_the_host(issue())
    time.sleep(3)  # until all have a status of the others
    if rank == 0:
        family = [one.status.process.pid for one in watchdog.received.values()]
        pids = " ".join(map(str, [*family, os.getpid()]))
        command = f"kill -STOP {pids}; sleep {3 * watchdog.timeout_s}; kill -CONT {pids}"
        subprocess.Popen(["sh", "-c", command], start_new_session=True)
    endless_loop()


def test_a_pause_of_all_ranks_is_no_hang(tmp_path: Path) -> None:
    """They hang all the time: what is found is a hang of timeout_s after the pause, and not one of the pause."""
    printed = printed_by(all_are_paused, tmp_path)
    assert "No status has ever come" not in printed
    found = re.search(r"No rank has made progress for (\d+) s", printed)
    assert found is not None, printed
    assert TIMEOUT_S <= int(found[1]) < 3 * TIMEOUT_S, printed


def listens_to_signals(_rank: int, watchdog: Any) -> None:
    from unsee_dist.supervision import watchdog as module
    from unsee_dist.supervision.signals import StopSignal

    module.MARGIN_S = 1.0
    stop = StopSignal()
    stop.while_paused = watchdog.paused
    for beat in count():
        if stop.requested:
            break
        if beat == 20:  # 2 s: a look has set the deadline
            print("listens", file=sys.stderr, flush=True)
        enter_phase("backward", 7)
        time.sleep(0.1)
    os._exit(ExitCode.STOPPED)


def test_a_pause_is_longer_than_the_deadline(tmp_path: Path) -> None:
    """Ctrl-Z, and Slurm's suspend, say so before. (After a SIGSTOP the deadline may end the process when it runs again.)"""
    said = tmp_path / "0.err"
    said.touch()
    (process,) = launch(listens_to_signals, tmp_path, ranks=1, timeout_s=2.0)
    try:
        until = time.monotonic() + 120
        while "listens" not in said.read_text() and time.monotonic() < until:
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGTSTP)
        time.sleep(8)  # 2 x 2 s and the margin are 5
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(1)
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        process.join(60)
        assert process.exitcode == ExitCode.STOPPED, said.read_text()
    finally:
        process.kill()
        process.join()


def one_leaves(rank: int, watchdog: Any) -> None:
    wait_on_the_host(issue())
    if rank == 1:
        watchdog.announce_exit("it has exited, its own output says why")
        endless_loop()  # as where the library of its device does not let it go
    wait_on_the_host(issue())


def test_ranks_end_when_one_has_left_whose_process_stays(tmp_path: Path) -> None:
    printed = printed_by(one_leaves, tmp_path, ends=(0, 2))
    assert f"rank 1 on {HOST} (step 7, backward): it has exited, its own output says why." in printed


def torch_waits_longer(_rank: int, watchdog: Any) -> None:
    """Exits with 3 when all is as it should be."""
    from unsee_dist.distributed.groups import torch_timeout_s

    late, expected = dist.new_group(), torch_timeout_s(watchdog.timeout_s)
    assert expected > 2 * watchdog.timeout_s
    until = time.monotonic() + 60
    groups = [dist.distributed_c10d._get_default_group(), late]
    while True:  # the second one is seen at the next look
        found = [group._get_backend(torch.device("cpu")).options._timeout.total_seconds() for group in groups]
        found.append(dist.distributed_c10d._get_default_store().timeout.total_seconds())
        if set(found) == {expected}:
            os._exit(ExitCode.RANK_LOST)
        assert time.monotonic() < until, found
        time.sleep(0.2)


@pytest.mark.parametrize("timeout_s", [pytest.param(60.0, marks=pytest.mark.slow), 900.0])
def test_torch_does_not_end_a_collective_before_the_watchdog(timeout_s: float, tmp_path: Path) -> None:
    printed_by(torch_waits_longer, tmp_path, timeout_s=timeout_s)


def one_of_few_watchers_sees_it(rank: int, watchdog: Any) -> None:
    """As among more than 64 ranks: ranks 0 and 2 read the statuses of all, rank 1 theirs."""
    if rank == 1:
        watchdog._watched = [0, 2]
    wait_on_the_host(issue())
    if rank == 2:
        endless_loop()
    wait_on_the_host(issue())


def test_a_rank_that_reads_few_statuses_hears_the_verdict_of_one_that_reads_all(tmp_path: Path) -> None:
    printed = printed_by(one_of_few_watchers_sees_it, tmp_path)
    assert f"rank 2 on {HOST} (step 7, backward) has made no progress for" in printed
    assert (
        f"Waiting for it: rank 0 on {HOST} (step 7, backward); rank 1 on {HOST} (step 7, backward)."
        in printed
    )


def test_where_the_first_rank_asks_for_the_others_the_rank_that_hangs_is_named(tmp_path: Path) -> None:
    printed = printed_by(one_issues_fewer, tmp_path, relayed=True)
    assert f"rank 1 on {HOST} (step 7, backward) has made no progress for" in printed


def the_relay_dies(rank: int, _watchdog: Any) -> None:
    wait_on_the_host(issue())
    if rank == 0:
        time.sleep(3)
        os.kill(os.getpid(), signal.SIGKILL)
    endless_loop()


def test_a_relay_that_is_gone_ends_the_ranks_of_its_host(tmp_path: Path) -> None:
    printed = printed_by(the_relay_dies, tmp_path, ends=(1, 2), relayed=True)
    assert "or the first rank of this host is, which asks it for the others" in printed
