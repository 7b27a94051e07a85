"""Processes: a function applied to tasks in parallel, on this machine or on a Ray cluster; results in task order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.popen_forkserver import Popen
from multiprocessing.process import BaseProcess
from typing import Protocol, TypeVar

from unsee_dist.errors import ExitCode, UserError, ends_process

Task = TypeVar("Task")
Result = TypeVar("Result")
TASKS_PER_PROCESS = 2  # tasks queued for a process: bounds the memory of tasks and results
LOCAL, RAY = ENGINES = ("local", "ray")


class _Worker(ForkServerProcess):
    """A process that does not import the program which started it, as those of multiprocessing do: no function of it is run
    here. So a script needs no `if __name__ == "__main__":`, and a program may come from standard input or a notebook."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Popen:
        with _main_is_no_file():
            return Popen(process_obj)


class WorkerContext(ForkServerContext):
    """multiprocessing's "forkserver" for all processes that are started here. A fork is unsafe while threads of gloo run; the
    fork server is a clean process, which imports a module once for all of them."""

    Process = _Worker

    def __init__(self, *imported: str) -> None:
        super().__init__()
        self.set_forkserver_preload(list(imported))


_STARTING = threading.Lock()


@contextmanager
def _main_is_no_file() -> Iterator[None]:
    """multiprocessing imports what __main__ says that it is: meanwhile it says what it does in an interactive session."""
    with _STARTING:
        main = vars(sys.modules["__main__"])
        before: dict[str, object] = {name: main[name] for name in ("__file__", "__spec__") if name in main}
        main.pop("__file__", None)
        main["__spec__"] = None
        try:
            yield
        finally:
            main.update(before)


class TaskRunner(Protocol):
    """Runs a function over tasks."""

    def __call__(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """The results of function(task), in order. Both are pickled for the processes: no closures.

        Raises what function raises; ChildProcessError when a process was killed.
        """
        ...


@contextmanager
def worker_pool(processes: int | None = None, engine: str = LOCAL) -> Iterator[TaskRunner]:
    """A pool that runs tasks. engine: "local" (`processes` of them, None = all usable cores), or "ray" (the cluster at
    RAY_ADDRESS, or one started here where it is not set). Raises UserError when it cannot be started."""
    if engine not in ENGINES:
        raise UserError(f"engine = {engine} is unknown. Use {' or '.join(ENGINES)}.")
    if processes is not None and processes < 1:
        raise UserError(f"processes = {processes} is less than one. Use 1 or more.")
    if engine == LOCAL:
        with _pool(processes or len(os.sched_getaffinity(0))) as run_tasks:
            yield run_tasks
        return
    if processes is not None:
        raise UserError(
            f"processes = {processes} is for the engine local: Ray runs a task on each CPU of its cluster. Leave it out."
        )
    from unsee_dist.ray_pool.cluster import connected  # imports ray: 3 s

    with connected():
        yield _run_on_ray


@contextmanager
def _pool(processes: int) -> Iterator[TaskRunner]:
    """Processes of this machine. They start with the first call that has several tasks, and serve later calls."""
    pool: ProcessPoolExecutor | None = None
    children: Mapping[int, BaseProcess] = {}

    def run_tasks(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        nonlocal pool, children
        remaining = iter(tasks)
        first = list(islice(remaining, 2))
        if processes == 1 or len(first) < 2:
            yield from map(function, chain(first, remaining))
            return
        if pool is None:
            context = WorkerContext(__name__, function.__module__)
            pool = ProcessPoolExecutor(processes, mp_context=context, initializer=end_with_parent)
            assert pool._processes is not None
            children = pool._processes  # shutdown() forgets them
        pending: deque[Future[Result]] = deque()
        try:
            for task in chain(first, remaining):
                pending.append(pool.submit(function, task))
                if len(pending) >= TASKS_PER_PROCESS * processes:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            if (
                error.__cause__ is not None
            ):  # what a process has sent cannot be read: a bug, whose lines are the cause
                raise
            pool.shutdown(cancel_futures=True)  # waits for all of them
            codes = [child.exitcode for child in children.values()]
            if -signal.SIGKILL not in codes:  # it crashed, or its start failed
                error.add_note(f"exit codes of the processes: {codes}")
                raise
            raise ChildProcessError(
                "a process of the preparation was killed, perhaps for its memory. "
                "Run it again with fewer --processes: it continues."
            ) from error
        finally:
            for future in pending:
                future.cancel()

    try:
        yield run_tasks
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def run_serially(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """Run the tasks one after the other in this process."""
    yield from map(function, tasks)


def _run_on_ray(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """Run the tasks on the connected Ray cluster."""
    from unsee_dist.ray_pool.tasks import map_unordered

    done: dict[int, Result] = {}
    next_index = 0
    for index, result in map_unordered(function, tasks):
        done[index] = result
        while next_index in done:
            yield done.pop(next_index)
            next_index += 1


def start_fork_server(imported: str) -> None:
    """Start the process that this one's workers are forked from, which imports a module meanwhile. Returns at once.

    It would start with the first worker, who waits for its imports. Ctrl-C reaches the whole group of a terminal, and ends an
    import with a traceback: it is blocked there, also in the workers, which end with their parent.
    """
    WorkerContext(imported)
    resource_tracker.ensure_running()  # else the fork server starts it, and that unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """End this process when its parent ends: a worker of a killed parent would wait for its next task for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    @ends_process
    def watch() -> None:
        parent.join()
        os._exit(ExitCode.BUG)

    threading.Thread(target=watch, daemon=True).start()
