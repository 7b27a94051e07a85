"""Processes: a function over tasks, side by side on this machine or on a Ray cluster, results in the order of the tasks."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from typing import Protocol, TypeVar

from unsee_dist.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")
AHEAD = 2  # tasks a process may have waiting: what bounds the memory of tasks and results
ENGINES = ("local", "ray")


class Work(Protocol):
    """Runs a function over tasks."""

    def __call__(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """function of each task, in order. function and tasks cross to clean processes: no closures.

        Raises what function raises; ChildProcessError, a sentence, when a process was killed.
        """
        ...


@contextmanager
def side_by_side(processes: int | None = None, engine: str = "local") -> Iterator[Work]:
    """What runs tasks. engine: "local", on so many processes, None = all usable cores; "ray", on the cluster at
    RAY_ADDRESS, or without that on one started here. Raises ValueError, one sentence, when it cannot be had."""
    if engine not in ENGINES:
        raise UserError(f"engine = {engine} is unknown. Use {' or '.join(ENGINES)}.")
    if processes is not None and processes < 1:
        raise UserError(f"processes = {processes} cannot work. Use 1 or more.")
    if engine == "local":
        with _pool(processes or len(os.sched_getaffinity(0))) as work:
            yield work
        return
    if processes is not None:
        raise UserError(
            f"processes = {processes} is for the engine local: Ray runs a task on each CPU of its cluster. Leave it out."
        )
    from unsee_dist.ray_pool.cluster import connected  # 3 s, for those who asked for it

    with connected():
        yield _on_cluster


@contextmanager
def _pool(processes: int) -> Iterator[Work]:
    """Processes of this machine. They start with the first tasks that are several, and stay for those to come."""
    pool: ProcessPoolExecutor | None = None

    def work(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        nonlocal pool
        remaining = iter(tasks)
        first = list(islice(remaining, 2))
        if processes == 1 or len(first) < 2:
            yield from map(function, chain(first, remaining))
            return
        if pool is None:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__, function.__module__])
            pool = ProcessPoolExecutor(processes, mp_context=context, initializer=end_with_parent)
        waiting: deque[Future[Result]] = deque()
        try:
            for task in chain(first, remaining):
                waiting.append(pool.submit(function, task))
                if len(waiting) >= AHEAD * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a process of the preparation was killed, perhaps for its memory. "
                "Run it again with fewer --processes: it continues."
            ) from error
        finally:
            for future in waiting:
                future.cancel()

    try:
        yield work
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def here(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """In this process."""
    yield from map(function, tasks)


def _on_cluster(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """On the machines of the connected Ray cluster."""
    from unsee_dist.ray_pool.tasks import map_unordered

    done: dict[int, Result] = {}
    wanted = 0
    for index, result in map_unordered(function, tasks):
        done[index] = result
        while wanted in done:
            yield done.pop(wanted)
            wanted += 1


def end_with_parent() -> None:
    """A killed parent leaves no worker waiting for ever for its next task."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
