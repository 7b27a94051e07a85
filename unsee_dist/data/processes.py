"""Processes: a function over tasks, side by side, results in the order of the tasks."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
AHEAD = 2  # tasks a process may have waiting: what bounds the memory of tasks and results


def usable() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def in_order(function: Callable[[Task], Result], tasks: Iterable[Task], processes: int) -> Iterator[Result]:
    """function of each task, in order. function and tasks cross to clean processes: no closures.

    A single task, or one process, stays here. Raises what function raises; ChildProcessError, a sentence, when a process was killed.
    """
    remaining = iter(tasks)
    first = list(islice(remaining, 2))
    if processes == 1 or len(first) < 2:
        yield from map(function, chain(first, remaining))
        return
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
        pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """A killed parent leaves no worker waiting for ever for its next task."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
