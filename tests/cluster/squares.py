"""Squares on the Ray cluster of RAY_ADDRESS, by ray_pool: `python squares.py FOLDER`.

The worker that takes number 5 kills itself once. When a third is done, it prints "some" and waits for FOLDER/go: the
test takes a machine away meanwhile. At the end, one line of JSON about what was seen.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

NUMBERS = 60
AT_MOST = 6


class Done(NamedTuple):
    square: int
    node: str
    package: str


class Work(NamedTuple):
    number: int
    killed: Path  # made by the worker that kills itself
    load: bytes = b"x" * 2**20  # travels through the object store


def square(work: Work) -> Done:
    import ray

    import unsee_dist
    from unsee_dist.errors import UserError

    if work.number == -9:
        raise KeyError("planted")
    if work.number < 0:
        raise UserError(f"number = {work.number} is negative. Use 0 or more.")
    if work.number == 5 and not work.killed.exists():
        work.killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return Done(work.number**2, ray.get_runtime_context().get_node_id(), str(unsee_dist.__file__))


def main() -> None:
    from unsee_dist.ray_pool.cluster import connected, nodes, slots
    from unsee_dist.ray_pool.tasks import map_unordered

    killed, taken, most, found = Path(sys.argv[1]) / "killed", 0, 0, {}

    def items() -> Iterator[Work]:
        nonlocal taken
        for number in range(NUMBERS):
            taken += 1
            yield Work(number, killed)

    with connected():
        refused: list[str] = []
        result = {"nodes": len(nodes()), "slots": slots(nodes(), 1), "refusals": refused}
        for items_of, cpus in (([Work(1, killed), Work(-3, killed)], 1), ([Work(1, killed)], 2)):
            try:
                list(map_unordered(square, items_of, cpus=cpus))
            except ValueError as error:
                refused.append(str(error))
        try:
            list(map_unordered(square, [Work(-9, killed)]))
        except KeyError:
            result["bug"] = traceback.format_exc()
        for index, done in map_unordered(square, items(), at_most=AT_MOST):
            assert index not in found
            found[index] = done
            most = max(most, taken - len(found))
            if len(found) == NUMBERS // 3:
                result["nodes that worked"] = len({done.node for done in found.values()})
                print("some", flush=True)
                while not killed.with_name("go").exists():
                    time.sleep(0.1)
    result |= {"squares": [found[n].square for n in sorted(found)], "most waiting": most}
    result["packages"] = sorted({done.package for done in found.values()})
    print(json.dumps(result))


if __name__ == "__main__":
    main()
