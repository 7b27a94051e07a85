"""The state of a pretended GPU: which tensors are on it, and what was counted."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("cuda", 0)
HOST = torch.device("cpu")

Watcher = Callable[[Any, Sequence[Any], dict[str, Any]], None]

# Storages by their address; a weak reference keeps it from being used again. Of the process: a tensor that is kept (a cache of
# constants) stays on the GPU from one PretendedGPU to the next.
THERE: dict[int, StorageWeakRef] = {}
NOWHERE: dict[int, StorageWeakRef] = {}


class _OfThread(threading.local):
    """asked: the places that python asks for, innermost last. counting: off in what stands for something else."""

    def __init__(self) -> None:
        self.asked: list[bool] = []
        self.counting = True


class PretendedGPU:
    """What is on the GPU, and what ran on it. `counts`: operations, host_reads, uploads, synchronisations since `counts.clear()`.

    operations: launches; views, memory and copies of a number to the host are none. host_reads: the host waits for a value (item,
    tolist, cpu, a result whose size is one). uploads: from the host's memory. synchronisations: of the whole device. waits: which lines
    of which files caused the last three.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self._watchers: list[Watcher] = []
        self._there, self._nowhere = THERE, NOWHERE
        self._placed = 0
        self._own = _OfThread()

    def has(self, tensor: Tensor) -> bool:
        """Whether the tensor is on the GPU."""
        return tensor.untyped_storage()._cdata in self._there

    def is_nowhere(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._nowhere

    def place(self, tensor: Tensor, there: bool | None) -> None:
        """The storage of this tensor is on the GPU from now on, or on the host, or (None) in neither place."""
        storage = tensor.untyped_storage()
        self._there.pop(storage._cdata, None)
        self._nowhere.pop(storage._cdata, None)
        if there is not False:
            (self._there if there else self._nowhere)[storage._cdata] = StorageWeakRef(storage)
        self._placed += 1
        if self._placed % 10_000 == 0:
            for places in (self._there, self._nowhere):
                for key in [key for key, storage in places.items() if storage.expired()]:
                    del places[key]

    def device_of(self, tensor: Tensor) -> torch.device:
        return DEVICE if self.has(tensor) else _ask_device(tensor)

    @contextmanager
    def at(self, there: bool) -> Iterator[None]:
        """What is made in this block is made there."""
        self._own.asked.append(there)
        try:
            yield
        finally:
            self._own.asked.pop()

    @property
    def asked(self) -> bool | None:
        return self._own.asked[-1] if self._own.asked else None

    @contextmanager
    def watched(self, watcher: Watcher) -> Iterator[None]:
        """In this block `watcher(operation, args, kwargs)` is called before every operation on the GPU; it may raise."""
        self._watchers.append(watcher)
        try:
            yield
        finally:
            self._watchers.remove(watcher)

    def show(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        for watcher in self._watchers:
            watcher(func, args, kwargs)

    def synchronise(self, *_: object) -> None:
        """The host waits for all work of the GPU."""
        self.count_wait("synchronisations")

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """What runs in this block stands for something else, and is not counted."""
        before, self._own.counting = self._own.counting, False
        try:
            yield
        finally:
            self._own.counting = before

    def count_operation(self) -> None:
        self.counts["operations"] += self._own.counting

    def count_wait(self, kind: str, times: int = 1) -> None:
        if self._own.counting:
            self.counts[kind] += times
            self.waits[f"{kind} {_caller()}"] += times

    def move(self, x: Tensor, there: bool, **how: Any) -> Tensor:
        """A copy of x in that place, or what `.to` gives where it is there already."""
        if self.has(x) == there:
            with self.at(there):
                return _to(x, **how)
        self.count_wait("uploads" if there else "host_reads")
        with self.at(there):
            moved = _to(x, **(how | {"copy": True}))
        self.place(moved, there)
        return moved


_to, _ask_device = torch._C.TensorBase.to, torch._C.TensorBase.device.__get__


def _caller() -> str:
    """The innermost line that belongs neither to torch nor to what pretends."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if (
            path.parent != Path(__file__).parent
            and "torch" not in path.parts
            and path.name != "contextlib.py"
        ):
            return f"{'/'.join(path.parts[-3:])}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


def tensors_of(*values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
