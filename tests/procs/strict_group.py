"""A process group that refuses what NCCL refuses, at any world size, in one process, on a pretended GPU.

    with pretended_world(rank=3, size=64) as world:
        engine = Engine(model.to(world.device), world.world, ...)
        with world.hot_path():
            train_step(...)
        world.group.sent                        # [Sent("all_reduce", 4096, ...), ...]

Refused, with NCCL's own reason: tensors of the host, of a dtype or an operation that NCCL has not, that are not contiguous, whose
shapes do not fit each other; objects with tensors in them (they would go through the GPU's memory, pickled); and in the hot
path every collective of objects and every barrier, since the host waits in them.

One process: the other ranks are pretended to have given the same tensors and objects as this one, so that a sum is
R times its part and a gathered list R times this rank's item. Values are then those of no real run; what is allowed, what is sent
and in which order is. `carried_by`: a gloo group of real processes, which then does the work, and every collective is
compared between the ranks first.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from pretended_gpu import DEVICE, PretendedGPU, accelerator, tensors_of
from torch import Tensor
from torch._C._distributed_c10d import HashStore, _create_work_from_future
from torch.futures import Future

from unsee_dist.distributed.world import World

NCCL, GLOO = "strict_nccl", "strict_gloo"  # names of the backends
# c10d::getNcclDataType
DTYPES = {
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
}
OPERATIONS = ("SUM", "AVG", "PRODUCT", "MIN", "MAX")
OBJECTS = ("all_gather_object", "gather_object", "broadcast_object_list", "scatter_object_list")


class Refused(AssertionError):
    """NCCL would have refused this, or it has no place here."""


@dataclass(frozen=True)
class Sent:
    """A collective. bytes: what one rank sends where the ranks form a ring. group: 0 is the first that was made."""

    kind: str
    bytes: int
    group: int


@dataclass
class Ledger:
    """What all groups of a world did. hot: in the hot path of a step."""

    sent: list[Sent] = field(default_factory=list)
    objects: Counter[str] = field(default_factory=Counter)
    groups: int = 0
    hot: bool = False


class StrictGroup(dist.ProcessGroup):
    """The collectives of NCCL (`host`: of gloo), simulated for one rank, or carried by a gloo group."""

    def __init__(self, rank: int, size: int, gpu: PretendedGPU, ledger: Ledger, host: bool) -> None:
        super().__init__(rank, size)
        self._rank, self._size, self._gpu, self._ledger, self._host = rank, size, gpu, ledger, host
        self._number = ledger.groups
        ledger.groups += 1

    @property
    def _device_types(self) -> list[torch.device]:
        return [torch.device("cpu" if self._host else "cuda")]

    def size(self) -> int:
        return self._size

    def rank(self) -> int:
        return self._rank

    def getBackendName(self) -> str:
        return GLOO if self._host else NCCL

    # What torch.distributed calls. Names of torch 2.13 first, those of 2.11 below.

    def allreduce(self, tensors: list[Tensor], opts: Any = None) -> Any:
        operation = self._operation(opts)
        for tensor in tensors:
            self._check("all_reduce", tensor)
            self._record("all_reduce", 2 * (self._size - 1) * -(-_bytes(tensor) // self._size))
            self._reduce(tensor, operation)
        return _done(tensors)

    def allreduce_coalesced(self, tensors: list[Tensor], opts: Any = None) -> Any:
        return self.allreduce(tensors, opts)

    def reduce(self, tensors: list[Tensor], opts: Any = None) -> Any:
        operation = self._operation(opts)
        for tensor in tensors:
            self._check("reduce", tensor)
            self._record("reduce", _bytes(tensor))
            if opts.rootRank == self._rank:
                self._reduce(tensor, operation)
        return _done(tensors)

    def broadcast(self, tensors: list[Tensor], _opts: Any = None) -> Any:
        for tensor in tensors:
            self._check("broadcast", tensor)
            self._record("broadcast", _bytes(tensor))
        return _done(tensors)

    def all_gather_single(self, output: Tensor, part: Tensor, _opts: Any = None) -> Any:
        self._check("all_gather", output, part)
        if output.dtype != part.dtype:
            raise Refused(f"all_gather of {part.dtype} into {output.dtype}: both must have one dtype")
        if output.numel() != self._size * part.numel():
            raise Refused(
                f"all_gather of {tuple(part.shape)} into {tuple(output.shape)}: output must be {self._size} times the part"
            )
        self._record("all_gather", (self._size - 1) * _bytes(part))
        output.view(self._size, -1).copy_(part.reshape(1, -1).expand(self._size, -1).clone())
        return _done(output)

    def allgather(self, outputs: list[list[Tensor]], parts: list[Tensor], _opts: Any = None) -> Any:
        for into, part in zip(outputs, parts, strict=True):
            self._check("all_gather", part, *into)
            self._same_shapes("all_gather", [part, *into])
            self._record("all_gather", (self._size - 1) * _bytes(part))
            whole = part.clone()
            for one in into:
                one.copy_(whole)
        return _done(outputs)

    def gather(self, outputs: list[list[Tensor]], parts: list[Tensor], opts: Any = None) -> Any:
        for number, part in enumerate(parts):
            into = outputs[number] if opts.rootRank == self._rank else []
            self._check("gather", part, *into)
            self._same_shapes("gather", [part, *into])
            self._record("gather", _bytes(part))
            for one in into:
                one.copy_(part)
        return _done(parts)

    def reduce_scatter_single(self, output: Tensor, whole: Tensor, opts: Any = None) -> Any:
        operation = self._operation(opts)
        self._check("reduce_scatter", output, whole)
        if whole.numel() != self._size * output.numel() or whole.dtype != output.dtype:
            raise Refused(f"reduce_scatter of {tuple(whole.shape)} into {tuple(output.shape)}")
        self._record("reduce_scatter", (self._size - 1) * _bytes(output))
        output.view(-1).copy_(whole.view(self._size, -1)[self._rank])
        self._reduce(output, operation)
        return _done(output)

    def reduce_scatter(self, outputs: list[Tensor], wholes: list[list[Tensor]], opts: Any = None) -> Any:
        operation = self._operation(opts)
        for output, parts in zip(outputs, wholes, strict=True):
            self._check("reduce_scatter", output, *parts)
            self._same_shapes("reduce_scatter", [output, *parts])
            self._record("reduce_scatter", (self._size - 1) * _bytes(output))
            output.copy_(parts[self._rank])
            self._reduce(output, operation)
        return _done(outputs)

    def all_gather_single_coalesced(
        self, outputs: list[Tensor], parts: list[Tensor], opts: Any = None
    ) -> Any:
        for output, part in zip(outputs, parts, strict=True):
            self.all_gather_single(output, part, opts)
        return _done(outputs)

    def reduce_scatter_single_coalesced(
        self, outputs: list[Tensor], wholes: list[Tensor], opts: Any = None
    ) -> Any:
        for output, whole in zip(outputs, wholes, strict=True):
            self.reduce_scatter_single(output, whole, opts)
        return _done(outputs)

    def barrier(self, opts: Any = None) -> Any:  # noqa: ARG002  (torch calls it by name)
        if self._ledger.hot:
            raise Refused("a barrier in the hot path of a step: the host waits for the GPU and for all ranks")
        self._record("barrier", 0)
        return _done(None)

    _allgather_base = all_gather_single
    _reduce_scatter_base = reduce_scatter_single
    allgather_into_tensor_coalesced = all_gather_single_coalesced
    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced

    # The rules.

    def _check(self, kind: str, *tensors: Tensor) -> None:
        for tensor in tensors:
            there = self._gpu.has(tensor)
            if self._host and there:
                raise Refused(f"{kind} over gloo of a tensor on the GPU: it goes through the host's memory")
            if not self._host and not there:
                raise Refused(f"{kind}: No backend type associated with device type cpu")
            if not tensor.is_contiguous():
                raise Refused(f"{kind}: Tensors must be contiguous, {tuple(tensor.shape)} {tensor.stride()}")
            if not self._host and tensor.dtype not in DTYPES:
                raise Refused(f"{kind}: Input tensor data type is not supported for NCCL: {tensor.dtype}")

    def _same_shapes(self, kind: str, tensors: list[Tensor]) -> None:
        kinds = {(tuple(tensor.shape), tensor.dtype) for tensor in tensors}
        if len(kinds) > 1:
            raise Refused(f"{kind}: All tensors must have the same shape and dtype, found {sorted(map(str, kinds))}")

    def _operation(self, opts: Any) -> str:
        for name in OPERATIONS:
            if opts.reduceOp == getattr(dist.ReduceOp, name):
                return name
        raise Refused("NCCL has none of the bitwise operations")

    def _reduce(self, tensor: Tensor, operation: str) -> None:
        if operation == "SUM":
            tensor.mul_(self._size)
        elif operation == "PRODUCT":
            tensor.pow_(self._size)

    def _record(self, kind: str, size: int) -> None:
        self._ledger.sent.append(Sent(kind, size, self._number))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _done(result: Any) -> Any:
    future: Future[Any] = Future()
    future.set_result(result)
    return _create_work_from_future(future)


@dataclass(frozen=True)
class Pretended:
    """world: with the pretended GPU as its device. ledger: of all its groups."""

    world: World
    gpu: PretendedGPU
    ledger: Ledger

    @contextmanager
    def hot_path(self) -> Iterator[None]:
        """A step: no objects, no barrier."""
        self.ledger.hot = True
        try:
            yield
        finally:
            self.ledger.hot = False


@contextmanager
def pretended_world(rank: int, size: int) -> Iterator[Pretended]:
    """This process is rank `rank` of `size` on a GPU, over NCCL. In a child of `processes.run`: it changes the whole process.

    The process group of before is gone in the block, and a group of one process is there after it.
    """
    gpu, ledger = PretendedGPU(), Ledger()
    dist.destroy_process_group()
    for name, host in ((NCCL, False), (GLOO, True)):
        _register(name, lambda _store, r, s, _t, host=host: StrictGroup(r, s, gpu, ledger, host))
    environment = {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, environment))
        _forget_groups()
        accelerators = __import__("deepspeed.accelerator.real_accelerator", fromlist=["_"])
        before = accelerators.get_accelerator()
        accelerators.set_accelerator(accelerator(gpu, NCCL))
        stack.callback(accelerators.set_accelerator, before)
        for name in OBJECTS:
            stack.enter_context(mock.patch.object(dist, name, _watched(getattr(dist, name), name, ledger)))
        stack.enter_context(mock.patch.object(dist, "new_group", _new_group(dist.new_group)))
        stack.enter_context(gpu)
        dist.init_process_group(NCCL, store=HashStore(), rank=rank, world_size=size)
        stack.callback(dist.destroy_process_group)
        yield Pretended(World(rank, size, 0, DEVICE), gpu, ledger)
    _forget_groups()
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)


def _register(name: str, create: Callable[..., StrictGroup]) -> None:
    dist.Backend._plugins.pop(name.upper(), None)  # of an earlier world in this process
    if hasattr(dist.Backend, name.upper()):
        delattr(dist.Backend, name.upper())
        dist.Backend.backend_list.remove(name)
    dist.Backend.register_backend(name, create, devices=["cpu", "cuda"])


def _forget_groups() -> None:
    """deepspeed keeps the groups of the first engine of a process."""
    import deepspeed.comm.comm as comm
    from deepspeed.utils import groups

    comm.cdb = None
    for name, value in vars(groups).items():
        if name.isupper() and name.startswith("_") and value is not None:
            setattr(groups, name, type(value)() if isinstance(value, dict) else None)


def _new_group(create: Callable[..., Any]) -> Callable[..., Any]:
    def new_group(*args: Any, backend: str | None = None, **kwargs: Any) -> Any:
        assert backend in (None, "gloo", NCCL), backend
        return create(*args, backend=GLOO if backend == "gloo" else NCCL, **kwargs)

    return new_group


def _watched(collective: Callable[..., Any], name: str, ledger: Ledger) -> Callable[..., Any]:
    """A collective of objects, with what has no place in it refused."""

    def watched(*args: Any, **kwargs: Any) -> Any:
        ledger.objects[name] += 1
        if ledger.hot:
            raise Refused(f"{name} in the hot path of a step: the host waits for the GPU and for all ranks")
        group = kwargs.get("group") or dist.distributed_c10d._get_default_group()
        given = args[0] if name in ("gather_object", "broadcast_object_list") else args[1]
        if not group._host and (found := _tensors_in(given)):
            raise Refused(
                f"{name} over NCCL of an object with tensors in it ({[tuple(t.shape) for t in found[:3]]} ...): they go pickled "
                "through the GPU's memory. Give it a gloo group."
            )
        return collective(*args, **kwargs)

    return watched


def _tensors_in(value: Any) -> list[Tensor]:
    return tensors_of(value)
