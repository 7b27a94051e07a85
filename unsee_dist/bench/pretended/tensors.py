"""What python asks of tensors, and what makes them, while a GPU is pretended: patches of torch.Tensor and of torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._device import _device_constructors

from unsee_dist.bench.pretended.device import HOST, PretendedGPU, tensors_of

Patch = tuple[Any, str, Any]  # owner, name, what takes its place

_numpy, _tolist, _type = torch._C.TensorBase.numpy, torch._C.TensorBase.tolist, torch._C.TensorBase.type


def questions(gpu: PretendedGPU) -> Iterator[Patch]:
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
        name = _type(x, *args, **kwargs)
        return name.replace("torch.", "torch.cuda.") if isinstance(name, str) and gpu.has(x) else name

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


def factories(gpu: PretendedGPU) -> Iterator[Patch]:
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


def asks_for_gpu(device: Any) -> bool:
    if isinstance(device, int):
        return True
    kind = torch.device(device).type
    assert kind in ("cpu", "cuda"), kind
    return kind == "cuda"
