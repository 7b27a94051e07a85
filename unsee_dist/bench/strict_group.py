"""A process group that refuses what NCCL refuses, at any world size, in one process, on a pretended GPU.

    with pretended_world(rank=3, size=64) as pretended:
        engine = Engine(model.to("cuda"), pretended.world, ...)
        with pretended.hot_path():
            train_step(...)
        pretended.ledger.sent                   # [Sent("all_reduce", 4096, group=0), ...]

Refused, with NCCL's own reason: tensors of the host, of a dtype or an operation that NCCL has not, that are not contiguous, whose
shapes do not fit each other; objects with tensors in them (they would go through the GPU's memory, pickled); and in the hot
path every collective of objects and every barrier, since the host waits in them.

One process: the other ranks are pretended to have given the same tensors and objects as this one, so that a sum is R times
its part and a gathered list R times this rank's item (`peers` may say other objects). Values are then those of no real
run; what is allowed, what is sent and in which order is. `carried`: real processes do the work over gloo, and compare what each
has given before every collective.
"""

from __future__ import annotations

import functools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C import _distributed_c10d as c10d
from torch._C._distributed_c10d import HashStore, PrefixStore
from torch.futures import Future

from unsee_dist.bench.pretended_gpu import DEVICE, PretendedGPU, accelerator, tensors_of
from unsee_dist.distributed.deepspeed_import import import_deepspeed
from unsee_dist.distributed.world import World

deepspeed = import_deepspeed()
real_accelerator, comm, groups = (
    deepspeed.accelerator.real_accelerator,
    deepspeed.comm.comm,
    deepspeed.utils.groups,
)
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
WORLDS = count()
ALL_GATHER_OBJECT = dist.all_gather_object  # torch's own
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
class CollectiveLedger:
    """What all groups of a world did. hot: in the hot path of a step. peers(rank, own object): what another rank gave."""

    sent: list[Sent] = field(default_factory=list)
    objects: Counter[str] = field(default_factory=Counter)
    groups: int = 0
    hot: bool = False  # of the thread that trains
    peers: Callable[[int, Any], Any] = lambda _rank, own: own

    def is_hot(self) -> bool:
        """The thread that writes checkpoints may wait as it likes."""
        return self.hot and threading.current_thread() is threading.main_thread()


def collective(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that stands for one kernel of NCCL: the operations that pretend it are not counted."""

    @functools.wraps(method)
    def uncounted(self: StrictGroup, *args: Any, **kwargs: Any) -> Any:
        with self._gpu.uncounted():
            return method(self, *args, **kwargs)

    return uncounted


class StrictGroup(dist.ProcessGroup):
    """The collectives of NCCL (`host`: of gloo), simulated for one rank, or carried by a gloo group."""

    def __init__(self, rank: int, size: int, gpu: PretendedGPU, ledger: CollectiveLedger, host: bool) -> None:
        super().__init__(rank, size)  # type: ignore[call-arg]  # torch's stubs have one constructor of two
        self._rank, self._size, self._gpu, self._ledger, self._host = rank, size, gpu, ledger, host
        self._number = ledger.groups
        ledger.groups += 1
        self.carrier: dist.ProcessGroup | None = None  # gloo, of the same ranks in real processes

    @property
    def _device_types(self) -> list[torch.device]:
        return [torch.device("cpu" if self._host else "cuda")]

    def size(self) -> int:
        return self._size

    def rank(self) -> int:
        return self._rank

    def getBackendName(self) -> str:
        return GLOO if self._host else NCCL

    # What torch.distributed calls. Names of torch 2.13; those of 2.11 are below.

    @collective
    def allreduce(self, tensors: list[Tensor], opts: Any = None) -> Any:
        operation = self._operation(opts)
        for tensor in tensors:
            self._check("all_reduce", tensor)
            self._record("all_reduce", 2 * (self._size - 1) * -(-_bytes(tensor) // self._size))
            self._reduce(tensor, operation)
        return _done(tensors)

    @collective
    def allreduce_coalesced(self, tensors: list[Tensor], opts: Any = None) -> Any:
        return self.allreduce(tensors, opts)

    @collective
    def reduce(self, tensors: list[Tensor], opts: Any = None) -> Any:
        operation = self._operation(opts)
        for tensor in tensors:
            self._check("reduce", tensor)
            self._record("reduce", _bytes(tensor))
            total = tensor.clone()
            self._reduce(total, operation)
            if opts.rootRank == self._rank:
                tensor.copy_(total)
        return _done(tensors)

    @collective
    def broadcast(self, tensors: list[Tensor], opts: Any = None) -> Any:
        for tensor in tensors:
            self._check("broadcast", tensor)
            self._record("broadcast", _bytes(tensor))
            if self.carrier is not None:
                dist.broadcast(tensor, opts.rootRank, group=self.carrier)
        return _done(tensors)

    @collective
    def all_gather_single(self, output: Tensor, part: Tensor, _opts: Any = None) -> Any:
        self._check("all_gather", output, part)
        if output.dtype != part.dtype:
            raise Refused(f"all_gather of {part.dtype} into {output.dtype}: both must have one dtype")
        if output.numel() != self._size * part.numel():
            raise Refused(
                f"all_gather of {tuple(part.shape)} into {tuple(output.shape)}: output must be {self._size} times the part"
            )
        self._record("all_gather", (self._size - 1) * _bytes(part))
        self._gather(list(output.view(self._size, -1)), part.view(-1))
        return _done(output)

    @collective
    def allgather(self, outputs: list[list[Tensor]], parts: list[Tensor], _opts: Any = None) -> Any:
        for into, part in zip(outputs, parts, strict=True):
            self._check("all_gather", part, *into)
            self._same_shapes("all_gather", [part, *into])
            self._record("all_gather", (self._size - 1) * _bytes(part))
            self._gather(into, part)
        return _done(outputs)

    @collective
    def gather(self, outputs: list[list[Tensor]], parts: list[Tensor], opts: Any = None) -> Any:
        for number, part in enumerate(parts):
            into = outputs[number] if opts.rootRank == self._rank else []
            self._check("gather", part, *into)
            self._same_shapes("gather", [part, *into])
            self._record("gather", _bytes(part))
            self._gather(into or [torch.empty_like(part) for _ in range(self._size)], part)
        return _done(parts)

    @collective
    def reduce_scatter_single(self, output: Tensor, whole: Tensor, opts: Any = None) -> Any:
        operation = self._operation(opts)
        self._check("reduce_scatter", output, whole)
        if whole.numel() != self._size * output.numel() or whole.dtype != output.dtype:
            raise Refused(f"reduce_scatter of {tuple(whole.shape)} into {tuple(output.shape)}")
        self._record("reduce_scatter", (self._size - 1) * _bytes(output))
        total = whole.clone()
        self._reduce(total, operation)
        output.view(-1).copy_(total.view(self._size, -1)[self._rank])
        return _done(output)

    @collective
    def reduce_scatter(self, outputs: list[Tensor], wholes: list[list[Tensor]], opts: Any = None) -> Any:
        for output, parts in zip(outputs, wholes, strict=True):
            self._same_shapes("reduce_scatter", [output, *parts])
            self.reduce_scatter_single(output, torch.cat([part.view(-1) for part in parts]), opts)
        return _done(outputs)

    @collective
    def all_gather_single_coalesced(
        self, outputs: list[Tensor], parts: list[Tensor], opts: Any = None
    ) -> Any:
        for output, part in zip(outputs, parts, strict=True):
            self.all_gather_single(output, part, opts)
        return _done(outputs)

    @collective
    def reduce_scatter_single_coalesced(
        self, outputs: list[Tensor], wholes: list[Tensor], opts: Any = None
    ) -> Any:
        for output, whole in zip(outputs, wholes, strict=True):
            self.reduce_scatter_single(output, whole, opts)
        return _done(outputs)

    @collective
    def barrier(self, opts: Any = None) -> Any:  # noqa: ARG002  (torch calls it by name)
        if self._ledger.is_hot():
            raise Refused("a barrier in the hot path of a step: the host waits for the GPU and for all ranks")
        self._record("barrier", 0)
        if self.carrier is not None:
            dist.barrier(self.carrier)
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
            raise Refused(
                f"{kind}: All tensors must have the same shape and dtype, found {sorted(map(str, kinds))}"
            )

    def _operation(self, opts: Any) -> str:
        for name in OPERATIONS:
            if opts.reduceOp == getattr(dist.ReduceOp, name):
                return name
        raise Refused("NCCL has none of the bitwise operations")

    def _reduce(self, tensor: Tensor, operation: str) -> None:
        if self.carrier is not None:
            named = "SUM" if operation == "AVG" else operation
            dist.all_reduce(tensor, getattr(dist.ReduceOp, named), group=self.carrier)
            if operation == "AVG":
                tensor.div_(self._size)
        elif operation == "SUM":
            tensor.mul_(self._size)
        elif operation == "PRODUCT":
            tensor.pow_(self._size)

    def _gather(self, into: list[Tensor], part: Tensor) -> None:
        if self.carrier is not None:
            dist.all_gather(into, part, group=self.carrier)
            return
        own = part.clone()  # it may be one of `into`
        for one in into:
            one.copy_(own)

    def _record(self, kind: str, size: int) -> None:
        self._ledger.sent.append(Sent(kind, size, self._number))
        if self.carrier is None:
            return
        given: list[Any] = [None] * self._size
        ALL_GATHER_OBJECT(given, (kind, size, self._number), group=self.carrier)
        if len(set(given)) > 1:
            raise Refused(f"the ranks are in different collectives (kind, bytes, group): {given}")


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _done(result: Any) -> Any:
    future: Future[Any] = Future()
    future.set_result(result)
    return c10d._create_work_from_future(future)  # type: ignore[attr-defined]  # not in torch's stubs


@dataclass(frozen=True)
class Pretended:
    """world: with the pretended GPU as its device. ledger: of all its groups."""

    world: World
    gpu: PretendedGPU
    ledger: CollectiveLedger

    @contextmanager
    def hot_path(self) -> Iterator[None]:
        """A step: no objects, no barrier."""
        self.ledger.hot = True
        try:
            yield
        finally:
            self.ledger.hot = False


@contextmanager
def pretended_world(rank: int, size: int, carried: bool = False) -> Iterator[Pretended]:
    """This process, in whose group it is alone, is rank `rank` of `size` on a GPU, over NCCL. It changes the whole process: give
    it one of its own, with DS_ACCELERATOR=cpu.

    carried: the child is itself rank `rank` of `size` processes. The gloo group of before is gone in the block, and there again
    after it.
    """
    gpu, ledger = PretendedGPU(), CollectiveLedger()
    before = dist.distributed_c10d._get_default_store(), dist.get_rank(), dist.get_world_size()
    number = next(WORLDS)
    dist.destroy_process_group()
    store = PrefixStore(f"strict-{number}", before[0]) if carried else HashStore()
    for name, host in ((NCCL, False), (GLOO, True)):
        _register(name, lambda _store, r, s, _t, host=host: StrictGroup(r, s, gpu, ledger, host))
    environment = {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, environment))
        _forget_groups()
        stack.callback(real_accelerator.set_accelerator, real_accelerator.get_accelerator())
        real_accelerator.set_accelerator(accelerator(gpu, NCCL))
        dist.init_process_group(NCCL, store=store, rank=rank, world_size=size)
        stack.callback(dist.destroy_process_group)
        if carried:
            _group().carrier = dist.new_group(backend="gloo")
        for name in OBJECTS:
            stack.enter_context(mock.patch.object(dist, name, _watched(getattr(dist, name), name, ledger)))
        stack.enter_context(mock.patch.object(dist, "new_group", _new_group(dist.new_group, carried)))
        if not carried and rank > 0:  # deepspeed compares values with those of rank 0, which is not here
            check = "assert_ints_same_as_other_ranks"
            stack.enter_context(
                mock.patch.object(deepspeed.runtime.zero.partitioned_param_coordinator, check)
            )
        stack.enter_context(gpu)
        yield Pretended(World(rank, size, 0, DEVICE), gpu, ledger)
    _forget_groups()
    store = PrefixStore(f"after-{number}", before[0])
    dist.init_process_group("gloo", store=store, rank=before[1], world_size=before[2])


def _group(given: dist.ProcessGroup | None = None) -> StrictGroup:
    """The group, or torch's default."""
    group = given or dist.group.WORLD
    assert isinstance(group, StrictGroup)
    return group


def _register(name: str, create: Callable[..., StrictGroup]) -> None:
    """Under a name that an earlier world of this process may have taken."""
    if hasattr(dist.Backend, name.upper()):
        delattr(dist.Backend, name.upper())
        dist.Backend.backend_list.remove(name)
    dist.Backend.register_backend(name, create, devices=["cpu", "cuda"])


def _forget_groups() -> None:
    """deepspeed keeps the groups of the first engine of a process."""
    comm.cdb = None
    for name, value in vars(groups).items():
        if name.isupper() and name.startswith("_") and value is not None:
            setattr(groups, name, type(value)() if isinstance(value, dict) else None)


def _new_group(create: Callable[..., Any], carried: bool) -> Callable[..., Any]:
    def new_group(*args: Any, backend: str | None = None, **kwargs: Any) -> Any:
        assert backend in (None, "gloo", NCCL), backend
        made = create(*args, backend=GLOO if backend == "gloo" else NCCL, **kwargs)
        if carried:
            made.carrier = create(*args, backend="gloo", **kwargs)
        return made

    return new_group


def _watched(collective: Callable[..., Any], name: str, ledger: CollectiveLedger) -> Callable[..., Any]:
    """A collective of objects: what has no place in it is refused, and the objects of pretended peers are put in."""

    def watched(*args: Any, group: Any = None, **kwargs: Any) -> Any:
        ledger.objects[name] += 1
        if ledger.is_hot():
            raise Refused(f"{name} in the hot path of a step: the host waits for the GPU and for all ranks")
        chosen = _group(group)
        given, into = (args[1], args[0]) if name == "all_gather_object" else (args[0], [*args[1:], None][0])
        if not chosen._host and (found := tensors_of(given)):
            raise Refused(
                f"{name} over NCCL of an object with tensors in it ({[tuple(t.shape) for t in found[:3]]}): they go pickled "
                "through the GPU's memory. Give it a gloo group."
            )
        collective(*args, group=group, **kwargs)
        if chosen.carrier is None and name in ("all_gather_object", "gather_object") and into is not None:
            for rank in range(chosen.size()):
                into[rank] = into[rank] if rank == chosen.rank() else ledger.peers(rank, into[rank])

    return watched
