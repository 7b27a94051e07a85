"""Run an ordinary function with asserts on several ranks, and bring back what each returned.

    def worker(rank, size, factor):
        total = torch.tensor(float(rank * factor))
        dist.all_reduce(total)
        assert total == factor * sum(range(size))
        return total.item()

    assert run(worker, 3, 2) == [6.0, 6.0, 6.0]

The ranks talk over gloo, with one thread each, and meet in a file (no port to be in use). They are forked from
a server that has imported torch and deepspeed already: 0.3 s a group instead of 3. Each has the environment
of a launcher, so `deepspeed.initialize` works in a worker. One group per rank count is enough: loop inside.
With device="cuda" they have a GPU each and talk over nccl; where there are fewer GPUs they share the first one, over gloo.
"""

import contextlib
import datetime
import faulthandler
import multiprocessing
import os
import pickle
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PRELOAD = ["torch", "torch.distributed", "numpy", "deepspeed", "transformers", "unsee_dist.objectives"]
# Read by torch and deepspeed when they are imported, so the server must have them, not only its children.
AT_IMPORT = {
    "OMP_NUM_THREADS": "1",
    "DS_ACCELERATOR": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "GLOO_SOCKET_IFNAME": "lo",
    "TOKENIZERS_PARALLELISM": "false",
}
# In their place where the ranks use GPUs; deepspeed is then imported by the ranks, since it may start CUDA.
AT_IMPORT_CUDA = {
    "OMP_NUM_THREADS": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "TOKENIZERS_PARALLELISM": "false",
    "UNSEE_TEST_DEVICE": "cuda",
}
# After the first rank has failed the others get this long to fail too: the cause is the earliest failure.
GRACE_S = 1.0


class RankFailed(AssertionError):
    """A rank raised, died or did not end; the message has its number and its traceback or stack."""


def run(
    worker: Callable[..., Any], ranks: int, *args: Any, timeout_s: float = 120, device: str = "cpu"
) -> list[Any]:
    """`[worker(rank, ranks, *args) for each rank]`, at the same time, in a gloo group of their own.

    `worker` is a module-level function; arguments and results must pickle. Raises RankFailed with the
    traceback of the rank that failed first, or with the stacks of all when they did not end in `timeout_s`.
    No process is left behind.
    """
    context = _context(device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        group = [
            context.Process(target=_child, args=(worker, rank, ranks, folder, device, args))
            for rank in range(ranks)
        ]
        try:
            for process in group:
                process.start()
            codes = _wait(group, timeout_s)
            reports = _reports(folder, ranks)  # before the kills, which make the last ones fail as well
        finally:
            for process in group:
                if process.is_alive():
                    process.kill()
                if process.pid is not None:
                    process.join()
        stacks = [
            path.read_text() if path.exists() else ""
            for path in (_stack(folder, rank) for rank in range(ranks))
        ]
        return _results(reports, codes, stacks, f"{worker.__name__} on {ranks} ranks, limit {timeout_s} s")


def _context(device: str) -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([name for name in PRELOAD if device == "cpu" or name != "deepspeed"])
    with _environment(AT_IMPORT if device == "cpu" else AT_IMPORT_CUDA):
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _wait(group: Sequence[BaseProcess], timeout_s: float) -> list[int | None]:
    """Exit codes once all have ended, one has failed and its grace is over, or the time is (None: running)."""
    deadline, failed = time.monotonic() + timeout_s, False
    while running := [process for process in group if process.exitcode is None]:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            break
        connection.wait([process.sentinel for process in running], left_s)
        if not failed and any(process.exitcode not in (None, 0) for process in group):
            failed, deadline = True, min(deadline, time.monotonic() + GRACE_S)
    for process in running:
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            os.kill(process.pid or 0, signal.SIGQUIT)  # writes its stack, see _child
    if running:
        time.sleep(0.2)
    return [process.exitcode for process in group]


def _stack(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.stack"


def _reports(folder: Path, ranks: int) -> dict[int, tuple[bool, float, Any]]:
    """By rank: returned or raised, when, and the result or the traceback. A rank without one is not here."""
    paths = {rank: folder / f"rank-{rank}.pickle" for rank in range(ranks)}
    return {rank: pickle.loads(path.read_bytes()) for rank, path in paths.items() if path.exists()}


def _results(
    reports: dict[int, tuple[bool, float, Any]], codes: list[int | None], stacks: list[str], title: str
) -> list[Any]:
    ranks = range(len(codes))
    if dead := {rank: codes[rank] for rank in ranks if codes[rank] is not None and rank not in reports}:
        raise RankFailed(f"ranks died without a word in {title}, exit codes by rank: {dead}")
    if failures := [(at_s, rank) for rank, (returned, at_s, _) in reports.items() if not returned]:
        _, rank = min(failures)
        raise RankFailed(f"rank {rank} failed in {title}:\n{reports[rank][2]}")
    if running := [rank for rank in ranks if codes[rank] is None]:
        where = "\n".join(f"rank {rank}:\n{stacks[rank]}" for rank in running)
        raise RankFailed(f"ranks {running} did not end {title}\n{where}")
    return [reports[rank][2] for rank in ranks]


def _child(
    worker: Callable[..., Any], rank: int, ranks: int, folder: Path, device: str, args: tuple[Any, ...]
) -> None:
    with _stack(folder, rank).open("w") as stack:
        faulthandler.register(signal.SIGQUIT, file=stack)
        launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
        if device == "cuda" and not _own_gpus(ranks):
            launched["LOCAL_RANK"] = 0  # deepspeed's number of the GPU
        os.environ.update(AT_IMPORT if device == "cpu" else AT_IMPORT_CUDA)
        os.environ.update({key: str(value) for key, value in launched.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")  # expected by deepspeed, never bound
        try:
            result = _work(worker, rank, ranks, folder, device, args)
            message = pickle.dumps((True, time.monotonic(), result))
        except BaseException:
            message = pickle.dumps((False, time.monotonic(), traceback.format_exc()))
            raise SystemExit(1) from None
        finally:
            part = folder / f"rank-{rank}.part"
            part.write_bytes(message)
            part.rename(folder / f"rank-{rank}.pickle")


def _own_gpus(ranks: int) -> bool:
    """Whether there is a GPU for each rank."""
    import torch

    return ranks <= torch.cuda.device_count()


def _work(
    worker: Callable[..., Any], rank: int, ranks: int, folder: Path, device: str, args: tuple[Any, ...]
) -> Any:
    # Here, not above: the test process itself needs no torch, and its children find it imported.
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    own_gpu = device == "cuda" and _own_gpus(ranks)
    if device == "cuda":
        torch.cuda.set_device(rank if own_gpu else 0)
    dist.init_process_group(
        "nccl" if own_gpu else "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=ranks,
        timeout=datetime.timedelta(minutes=10),  # the parent's timeout comes first and says more
    )
    result = worker(rank, ranks, *args)
    dist.barrier()  # a rank that leaves early would fail the others
    dist.destroy_process_group()
    return result
