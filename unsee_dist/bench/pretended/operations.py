"""Every operation of a thread while a GPU is pretended: refused where two devices meet, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unsee_dist.bench.pretended.device import PretendedGPU, tensors_of

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


class Operations(TorchDispatchMode):
    """Every operation that runs in this thread."""

    def __init__(self, gpu: PretendedGPU) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
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
