"""A pretended GPU: CPU tensors that say they are on cuda:0, compute what a CPU computes, and are refused what a GPU refuses.

    with PretendedGPU() as gpu:
        x = torch.ones(3, device="cuda")        # x.device is cuda:0
        x + torch.ones(3)                       # RuntimeError: two devices
        x.numpy()                               # TypeError, as on CUDA
        x.sum().item()                          # counted: the host waits for the GPU

A storage is on the GPU when it was made there (`.to`, `device=`, or by an operation on another that is), and so are all its
views. Python's questions (`.device`, `.to`, `.cpu`, `device=`) are answered by patches of torch.Tensor and of torch, which hold
in every thread and in backward, where torch leaves function modes; a TorchDispatchMode sees every operation of the thread that
entered, also those of autograd, of optimizers and of deepspeed. Values are those of the CPU, so a run has its real losses.

What it cannot see: the order of work on several streams (there is one), time, and the kernels of a GPU themselves. An operation
counts as one launch, also where CUDA launches several kernels, and where a Triton kernel of this project takes the place of many. What C++ makes without any tensor as its model (a
scalar in torch.where) belongs to neither place until it is used.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unsee_dist.distributed.deepspeed_import import import_deepspeed
from unsee_dist.model import dropout

DEVICE = torch.device("cuda", 0)
HOST = torch.device("cpu")

# Memory and shapes: nothing runs on the GPU.
NO_LAUNCH = {
    "aten::empty",
    "aten::empty_like",
    "aten::empty_strided",
    "aten::new_empty",
    "aten::new_empty_strided",
    "aten::detach",
    "aten::alias",
    "aten::lift_fresh",
    "aten::set_",
    "aten::resize_",
    "aten::_unsafe_view",
    "aten::_local_scalar_dense",
    "aten::detach_",
    "aten::record_stream",
    "aten::unsafe_split",
    "aten::unsafe_chunk",
    "aten::is_pinned",
}
# The host waits: the size of the result, or whether there is one, is known only when the GPU has computed it.
WAITS = {
    "aten::allclose",
    "aten::multinomial",
    "aten::_linalg_check_errors",  # of cholesky, inv, solve, ...
    "aten::_linalg_eigh",
    "aten::_linalg_svd",
    "aten::linalg_eig",
    "aten::linalg_lstsq",
    "aten::nonzero",
    "aten::masked_select",
    "aten::bincount",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::repeat_interleave",
    "aten::equal",
    "aten::is_nonzero",
    "aten::histc",
}
ACROSS = {"aten::copy_", "aten::_to_copy", "aten::set_"}  # may have tensors of both places
# not even 0-d tensors of the host
NO_SCALARS = ("aten::cat", "aten::stack", "aten::mm", "aten::addmm", "aten::bmm", "aten::_fused_")

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
    """Entered once at a time in a process. `counts`: operations, host_reads, uploads, synchronisations since `counts.clear()`.

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
        self._stack: ExitStack | None = None

    def __enter__(self) -> PretendedGPU:
        self._stack = ExitStack()
        for owner, name, patch in chain(_questions(self), _factories(self), _cuda(self)):
            self._stack.enter_context(mock.patch.object(owner, name, patch))
        self._stack.enter_context(_Operations(self))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stack is not None
        self._stack.close()

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
_numpy, _tolist, _type = torch._C.TensorBase.numpy, torch._C.TensorBase.tolist, torch._C.TensorBase.type


def _caller() -> str:
    """The innermost line that belongs neither to torch nor to this file."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.name != Path(__file__).name and "torch" not in path.parts and path.name != "contextlib.py":
            return f"{'/'.join(path.parts[-3:])}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


def tensors_of(*values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def asks_for_gpu(device: Any) -> bool:
    if isinstance(device, int):
        return True
    kind = torch.device(device).type
    assert kind in ("cpu", "cuda"), kind
    return kind == "cuda"


Patch = tuple[Any, str, Any]  # owner, name, what takes its place


def _questions(gpu: PretendedGPU) -> Iterator[Patch]:
    """What python asks of a tensor."""
    deepcopy: Callable[..., Tensor] = Tensor.__deepcopy__

    def to(x: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
        args = tuple(arg for arg in args if not isinstance(arg, bool))  # non_blocking and copy by their place
        layout = None
        if args and isinstance(args[0], Tensor):
            there, dtype = gpu.has(args[0]), args[0].dtype
        elif "other" in kwargs:
            there, dtype = gpu.has(kwargs["other"]), kwargs["other"].dtype
        else:
            device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
            there = gpu.has(x) if device is None else asks_for_gpu(device)
        how: dict[str, Any] = {"dtype": dtype or x.dtype, "copy": copy}
        return gpu.move(x, there, **how, **({} if layout is None else {"memory_format": layout}))

    def numpy(x: Tensor, **kwargs: Any) -> Any:
        if gpu.has(x):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        return _numpy(x, **kwargs)

    def tolist(x: Tensor) -> Any:
        if gpu.has(x):
            gpu.count_wait("host_reads")
        return _tolist(x)

    def pin_memory(x: Tensor, *_: Any) -> Tensor:
        if gpu.has(x):
            raise RuntimeError("cannot pin 'torch.cuda.FloatTensor': only dense CPU tensors can be pinned")
        return x.clone()

    def copied(x: Tensor, memo: Any) -> Tensor:
        made = deepcopy(x, memo)
        gpu.place(made, gpu.has(x))
        return made

    def type_(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        said = _type(x, *args, **kwargs)
        return said.replace("torch.", "torch.cuda.") if isinstance(said, str) and gpu.has(x) else said

    answers = {
        "device": property(gpu.device_of),
        "is_cuda": property(gpu.has),
        "is_cpu": property(lambda x: not gpu.has(x)),
        "get_device": lambda x: 0 if gpu.has(x) else -1,
        "to": to,
        "cuda": lambda x, *_, **__: gpu.move(x, True),
        "cpu": lambda x, **__: gpu.move(x, False),
        "numpy": numpy,
        "tolist": tolist,
        "type": type_,
        "pin_memory": pin_memory,
        "record_stream": lambda *_: None,
        "is_pinned": lambda *_, **__: False,
        "__deepcopy__": copied,
    }
    for name, answer in answers.items():
        yield Tensor, name, answer


def _factories(gpu: PretendedGPU) -> Iterator[Patch]:
    """What makes a tensor."""
    makers: list[Any] = [*_device_constructors(), torch.from_numpy, torch.frombuffer]
    for make in makers:
        name = getattr(make, "__name__", "")
        if getattr(torch, name, None) is make:
            yield torch, name, _factory(gpu, make, like=False)  # type: ignore[arg-type]  # torch leaves a place empty
    for name in dir(torch):
        if name.endswith("_like"):
            yield torch, name, _factory(gpu, getattr(torch, name), like=True)
    for name in ("new", "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor", "new_empty_strided"):
        yield Tensor, name, _factory(gpu, getattr(torch._C.TensorBase, name), like=True)


def _factory(gpu: PretendedGPU, make: Callable[..., Any], like: bool) -> Callable[..., Any]:
    """like: where its first argument is, unless a device is given; else on the host."""

    @functools.wraps(make)
    def made(*args: Any, **kwargs: Any) -> Any:
        device = kwargs.pop("device", None)
        if device is not None and torch.device(device).type == "meta":
            return make(*args, device=device, **kwargs)
        there = asks_for_gpu(device) if device is not None else like and gpu.has(args[0])
        if there and make in (torch._C._VariableFunctions.tensor, torch._C._VariableFunctions.as_tensor):
            gpu.count_wait("uploads")
        where = {} if device is None else {"device": HOST}
        with gpu.at(there):
            result = make(*args, **kwargs, **where)
        for tensor in tensors_of(result):
            gpu.place(tensor, there)
        return result

    return made


def waits(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether the host waits for this operation on CUDA, for another reason than to read a number."""
    if name in (
        "aten::index",
        "aten::index_put_",
        "aten::index_put",
    ):  # by a mask: as many places as it has ones
        return any(isinstance(by, Tensor) and by.dtype in (torch.bool, torch.uint8) for by in args[1])
    if name == "aten::segment_reduce":  # looks at the lengths first
        return not kwargs.get("unsafe", False)
    return name in WAITS


class _Operations(TorchDispatchMode):
    """Every operation that runs in this thread."""

    def __init__(self, gpu: PretendedGPU) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name, gpu = kwargs or {}, func._schema.name, self.gpu
        given = [tensor for tensor in tensors_of(args, kwargs) if not tensor.is_meta]
        there = [tensor for tensor in given if gpu.has(tensor)]
        if there and len(there) < len(given) and name not in ACROSS:
            self._need_one_place(func, name, args, given)
        if there:
            gpu.show(func, args, kwargs)
        made = func(*args, **kwargs)
        # what has no model and was not made by python belongs nowhere yet
        place = gpu.asked if gpu.asked is not None else bool(there) if given else None
        if name == "aten::copy_":
            self._count_copy(args[0], args[1])
        elif name != "aten::set_":
            for tensor in tensors_of(made):
                if tensor.is_meta:
                    continue
                if place is not False and not any(tensor is one for one in given) and not gpu.has(tensor):
                    gpu.place(tensor, place)
        if there or (place and not given):
            self._count(func, name, args, kwargs)
        return made

    def _need_one_place(self, func: Any, name: str, args: Any, given: list[Tensor]) -> None:
        for tensor in given:
            if self.gpu.is_nowhere(tensor):
                self.gpu.place(tensor, True)
                self.gpu.count_operation()  # of its making
        here = [tensor for tensor in given if not self.gpu.has(tensor)]
        if name in ("aten::index", "aten::index_put_", "aten::index_put") and self.gpu.has(args[0]):
            self.gpu.count_wait("uploads", len(here))  # torch copies indices of the host itself
        elif any(tensor.dim() > 0 for tensor in here) or (here and name.startswith(NO_SCALARS)):
            raise RuntimeError(
                f"{func}: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                f"({[(tuple(t.shape), str(self.gpu.device_of(t))) for t in given]})"
            )

    def _count_copy(self, into: Tensor, source: Tensor) -> None:
        if self.gpu.has(into) != self.gpu.has(source):
            self.gpu.count_wait("uploads" if self.gpu.has(into) else "host_reads")

    def _count(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        if name == "aten::_local_scalar_dense" or waits(name, args, kwargs):
            self.gpu.count_wait("host_reads")
        if name not in NO_LAUNCH and not func.is_view:
            self.gpu.count_operation()


class _Streams:
    """The one stream of the GPU, and events in it: everything has happened already. `wait` counts as a synchronisation."""

    def __init__(self, synchronise: Callable[..., None]) -> None:
        class Event:
            def __init__(self, *_: object, **__: object) -> None:
                """Whatever CUDA's takes."""

            def record(self, *_: object) -> None:
                """In order already."""

            def query(self) -> bool:
                return True

            def elapsed_time(self, _: Event) -> float:
                return 1.0

            wait = wait_stream = wait_event = record
            synchronize = staticmethod(synchronise)

        class Stream(Event):
            def record_event(self, event: Event | None = None) -> Event:
                return event or Event()

            def __enter__(self) -> Stream:
                return self

            def __exit__(self, *_: object) -> None:
                """Nothing was changed."""

        self.Event, self.Stream, self.only = Event, Stream, Stream()


def _cuda(gpu: PretendedGPU) -> Iterator[Patch]:
    """What torch.cuda answers. `is_available` stays False: nobody may find a real GPU."""
    streams = _Streams(gpu.synchronise)
    answers: dict[str, Any] = {
        "get_device_capability": lambda *_: (9, 0),
        "get_device_name": lambda *_: "pretended GPU",
        "current_device": lambda: 0,
        "is_current_stream_capturing": lambda: False,
        "device_count": lambda: 1,
        "set_device": lambda _: None,
        "synchronize": gpu.synchronise,
        "current_stream": lambda *_: streams.only,
        "default_stream": lambda *_: streams.only,
        "stream": lambda stream: stream,
        "Stream": streams.Stream,
        "Event": streams.Event,
    }
    for name, answer in answers.items():
        yield torch.cuda, name, answer
    yield torch.accelerator, "current_stream", answers["current_stream"]
    # Triton needs a real GPU: masks are drawn by the plain operations that define them
    yield dropout, "has_triton", lambda: False


def accelerator(gpu: PretendedGPU, backend: str) -> Any:
    """deepspeed's accelerator for it: the names of a GPU, one stream, and every `synchronize` counted."""
    base: Any = import_deepspeed().accelerator.cpu_accelerator.CPU_Accelerator
    streams = _Streams(gpu.synchronise)

    def tensor_type(dtype: torch.dtype) -> Any:
        return property(lambda _: functools.partial(torch.tensor, dtype=dtype, device="cuda"))

    class Accelerator(base):  # type: ignore[misc]  # deepspeed has no types
        def __init__(self) -> None:
            super().__init__()
            self._name, self._communication_backend_name = "cuda", backend

        def is_synchronized_device(self) -> bool:
            return False

        def device_name(self, device_index: int | None = None) -> str:
            return "cuda" if device_index is None else f"cuda:{device_index}"

        def current_device(self) -> int:
            return 0

        def current_device_name(self) -> str:
            return "cuda:0"

        def device_count(self) -> int:
            return 1

        def is_fp16_supported(self) -> bool:
            return True

        def on_accelerator(self, tensor: Tensor) -> bool:
            return tensor.device.type == "cuda"

        def stream(self, stream: Any) -> Any:
            return stream

        def current_stream(self, _: int | None = None) -> Any:
            return streams.only

        def default_stream(self, _: int | None = None) -> Any:
            return streams.only

        def synchronize(self, _: int | None = None) -> None:
            gpu.synchronise()

        Stream = property(lambda _: streams.Stream)
        Event = property(lambda _: streams.Event)
        BFloat16Tensor, ByteTensor = tensor_type(torch.bfloat16), tensor_type(torch.uint8)
        DoubleTensor, FloatTensor = tensor_type(torch.float64), tensor_type(torch.float32)
        HalfTensor, IntTensor = tensor_type(torch.float16), tensor_type(torch.int32)
        LongTensor = tensor_type(torch.int64)

    return Accelerator()
