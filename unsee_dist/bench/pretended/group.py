"""The collectives of NCCL for one rank, and its rules: what it refuses is refused (world.py says what)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C import _distributed_c10d as c10d
from torch.futures import Future

from unsee_dist.bench.pretended.device import PretendedGPU
from unsee_dist.bench.pretended.ledger import CollectiveLedger, Refused, Sent

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
ALL_GATHER_OBJECT = dist.all_gather_object  # torch's own


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
