"""A module that rank 0 has made, on every rank: no other rank reads its weights from a file.

    rank 0: module -> everything but its tensors, pickled        (some hundred KB)
            tensor after tensor, as bytes                        broadcast, through the ranks' devices

What is pickled names classes of installed packages, as each collective of objects does: it comes from a rank of this run.
"""

from __future__ import annotations

import io
import pickle
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unsee_dist.distributed.shared_errors import share_errors
from unsee_dist.distributed.world import World, from_rank_0

Made = TypeVar("Made", bound=nn.Module)


class TensorLayout(NamedTuple):
    """Of a tensor. trained: its gradient is wanted; None for a buffer."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    trained: bool | None


class _WithoutTensors(pickle.Pickler):
    def __init__(self, into: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(into, protocol=pickle.HIGHEST_PROTOCOL)
        self._places = {id(tensor): place for place, tensor in enumerate(tensors)}

    def persistent_id(self, value: object) -> int | None:
        return self._places.get(id(value))


class _WithTensors(pickle.Unpickler):
    def __init__(self, data: bytes, tensors: list[Tensor]) -> None:
        super().__init__(io.BytesIO(data))
        self._tensors = tensors

    def persistent_load(self, place: int) -> Tensor:
        return self._tensors[place]


def module_from_rank_0(world: World, made: Made | None) -> Made:
    """Rank 0's module, its parameters and buffers bit for bit and on the device, on every rank. Collective.

    made: None on the other ranks. Parameters that are one tensor are one on every rank.
    """
    structure, layouts, tensors = b"", list[TensorLayout](), list[Tensor]()
    with share_errors(world):
        if made is not None:
            made.to(world.device)
            tensors = [*made.parameters(), *made.buffers()]
            structure, layouts = _taken_apart(made, tensors), [_layout(tensor) for tensor in tensors]
    if world.size == 1:
        assert made is not None
        return made
    structure, layouts = from_rank_0(world, (structure, layouts))
    with share_errors(world):
        tensors = tensors or [_empty(layout, world.device) for layout in layouts]
    with torch.no_grad():
        for tensor in tensors:
            send(tensor, 0)
    with share_errors(world):
        module: Made = made if made is not None else _WithTensors(structure, tensors).load()
    return module


def _taken_apart(module: nn.Module, tensors: list[Tensor]) -> bytes:
    structure = io.BytesIO()
    _WithoutTensors(structure, tensors).dump(module)
    return structure.getvalue()


def _layout(tensor: Tensor) -> TensorLayout:
    return TensorLayout(
        tuple(tensor.shape),
        tensor.dtype,
        tensor.requires_grad if isinstance(tensor, nn.Parameter) else None,
    )


def _empty(layout: TensorLayout, device: torch.device) -> Tensor:
    tensor = torch.empty(layout.shape, dtype=layout.dtype, device=device)
    return tensor if layout.trained is None else nn.Parameter(tensor, requires_grad=layout.trained)


def send(tensor: Tensor, rank: int) -> None:
    """Write the values that `rank` has into the tensors of all, as bytes: not every backend sends every dtype. Collective."""
    flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
    if flat.numel():
        dist.broadcast(flat, src=rank)
    if not tensor.is_contiguous() and dist.get_rank() != rank:
        tensor.copy_(flat.view(tensor.dtype).view(tensor.shape))
