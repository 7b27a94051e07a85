"""Tasks: a function over items on the connected cluster, some at a time, results as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayTaskError,
    TaskUnschedulableError,
    WorkerCrashedError,
)

from unsee_dist.errors import ExitCode, UserError, exit_code_of
from unsee_dist.ray_pool.cluster import nodes, shortage, slots

Item = TypeVar("Item")
Result = TypeVar("Result")
RETRIES = 5  # of a task whose worker or node died
# Ray says "crashed" of a worker that was killed, and of one with a segmentation fault.
OTHERWISE = "Ray's logs of that machine (/tmp/ray/session_latest/logs) may say why."
REMEDIES: dict[type[Exception], str] = {
    OutOfMemoryError: "Its machines lack memory: run it again where there is more."
}
AHEAD = 2  # tasks a CPU may have waiting: what bounds the memory of items and results


def map_unordered(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    cpus: float = 1,
    gpus: float = 0,
    at_most: int | None = None,
) -> Iterator[tuple[int, Result]]:
    """(index of the item, function of it) in the order in which they are done. Inside `connected`.

    function is one that the workers can import, or that carries no module of its own; it may run twice for an
    item, when a worker or a node dies: it must then do the same again. cpus, gpus: of each. at_most: items under way
    at once; None = twice as many as run at once. Items are taken as they are needed.
    Raises what function raises; UserError when no node has so many; ChildProcessError when
    workers died again and again.
    """
    cluster = nodes()
    if lacks := shortage(cluster, cpus, gpus):
        raise UserError(f"a task {lacks}. Start Ray with more (`ray start --num-cpus=N`), or ask for fewer.")
    limit = at_most or AHEAD * slots(cluster, cpus, gpus)
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(function)
    waiting: dict[Any, int] = {}
    try:
        for index, item in enumerate(items):
            waiting[remote.remote(item)] = index
            if len(waiting) >= limit:
                yield _next(waiting)
        while waiting:
            yield _next(waiting)
    finally:
        for task in waiting:
            ray.cancel(task, force=True)


def _next(waiting: dict[Any, int]) -> tuple[int, Any]:
    """The index and result of a task that is done."""
    (task,), _ = ray.wait(list(waiting), num_returns=1)
    index = waiting.pop(task)
    try:
        return index, ray.get(task)
    except RayTaskError as error:
        if isinstance(error.cause, Exception):
            if exit_code_of(error.cause) is ExitCode.BUG:
                raise error.cause from error  # ray's own error has the worker's traceback
            raise error.cause from None
        raise
    except (
        WorkerCrashedError,
        NodeDiedError,
        ObjectLostError,
        OutOfMemoryError,
        TaskUnschedulableError,
    ) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ChildProcessError(
            f"item {index} could not be done on the Ray cluster in {RETRIES + 1} attempts ({reason}). "
            f"{REMEDIES.get(type(error), OTHERWISE)}"
        ) from error
