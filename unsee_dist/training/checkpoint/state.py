"""A run's state as named parts of flattened fp32 tensors, and back under any layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from unsee_dist.distributed.engine import Engine
from unsee_dist.distributed.shared_errors import share_errors
from unsee_dist.errors import UserError
from unsee_dist.model.target import Target
from unsee_dist.model.unsee import Unsee
from unsee_dist.training.checkpoint.manifest import Manifest
from unsee_dist.training.checkpoint.parts import (
    ADAM,
    BUFFERS,
    RANK,
    no_number,
    open_tensors,
    read_parts,
    sizes,
)

MasterRange = tuple[str, int, Tensor]  # name of a parameter, start in its flattened form, values


@dataclass(frozen=True)
class StateSlice:
    """`tensor` is elements start..start+len of the flattened `kind` of parameter `name`; a view that may be written."""

    kind: str
    name: str
    start: int
    tensor: Tensor

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.name}@{self.start}"


def state_slices(engine: Engine[Unsee], target: Target | None) -> Iterator[StateSlice]:
    """All training state of this rank that belongs to parameters."""
    for shard in engine.shards:
        yield StateSlice("master", shard.name, shard.start, shard.master)
        for kind, moment in zip(ADAM, engine.moments(shard), strict=True):
            yield StateSlice(kind, shard.name, shard.start, moment)
    if target is not None:
        for shard, ema in zip(target.shards, target.ema, strict=True):
            yield StateSlice("ema", shard.name, shard.start, ema)


def files(engine: Engine[Unsee], target: Target | None) -> dict[str, dict[str, Tensor]]:
    """What this rank writes: file name -> key -> tensor. At stage 0 every rank holds everything and writes an N-th of it."""
    world = engine.world
    own = {
        each.key: each.tensor.detach()
        for number, each in enumerate(state_slices(engine, target))
        if engine.stage > 0 or number % world.size == world.rank
    }
    content = {f"{RANK}{world.rank:05d}.safetensors": own}
    if world.rank == 0:  # the objective's state: the only buffers that training moves, equal on every rank
        content[BUFFERS] = {name: b.detach() for name, b in engine.module.objective.named_buffers()}
    return content


def load(folder: Path, manifest: Manifest, engine: Engine[Unsee], target: Target | None) -> None:
    """Fill engine and target from a verified folder. Collective at its end; UserError when parts are missing."""
    with share_errors(engine.world):
        reader = CheckpointReader(folder, manifest)
        trained = {n: p for n, p in engine.module.named_parameters() if p.requires_grad}
        reader.check_sizes({name: getattr(p, "ds_numel", p.numel()) for name, p in trained.items()})
        for each in state_slices(engine, target):
            reader.fill(each)
        _fill_buffers(folder, dict(engine.module.objective.named_buffers()))
    engine.set_updates(manifest.adam_updates)
    if engine.loss_scale is not None and manifest.loss_scale is not None:
        engine.loss_scale = copy(manifest.loss_scale)
    engine.refresh()
    if target is not None:
        target.publish()


def _fill_buffers(folder: Path, wanted: Mapping[str, Tensor]) -> None:
    """UserError: they are not the state of this objective."""
    file = open_tensors(folder / BUFFERS, "pt")
    if set(file.keys()) != set(wanted):
        other = min(set(file.keys()) ^ set(wanted))
        raise UserError(_other_objective(folder, other))
    for name, buffer in wanted.items():
        stored = file.get_tensor(name)
        if (stored.shape, stored.dtype) != (buffer.shape, buffer.dtype):
            raise UserError(_other_objective(folder, name))
        if not stored.isfinite().all():
            raise UserError(no_number(folder, "state", name))
        buffer.copy_(stored)


def _other_objective(folder: Path, name: str) -> str:
    return f"{folder} has no state {name} of this objective. Give this run a run.dir of its own."


class CheckpointReader:
    """Random access to the parts of a checkpoint, whatever layout wrote it."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.parts = read_parts(folder, manifest, framework="pt")

    def check_sizes(self, wanted: Mapping[str, int]) -> None:
        """UserError: its parameters are not these, with so many elements each."""
        stored = sizes(self.parts, "master")
        for name in [*wanted, *stored]:
            if stored.get(name) != wanted.get(name):
                raise UserError(self._other("master", name, stored.get(name, 0), wanted.get(name, 0)))

    def fill(self, wanted: StateSlice) -> None:
        """Copy the stored elements of the slice's range into its tensor. UserError: some are missing, or are no numbers."""
        first, last = wanted.start, wanted.start + len(wanted.tensor)
        filled = 0
        for start, stop, file, key in self.parts.get((wanted.kind, wanted.name), ()):
            low, high = max(first, start), min(last, stop)
            if low < high:
                wanted.tensor[low - first : high - first] = file.get_slice(key)[low - start : high - start]
                filled += high - low
        if filled != len(wanted.tensor):
            raise UserError(self._other(wanted.kind, wanted.name, filled, len(wanted.tensor)))
        if not wanted.tensor.isfinite().all() or (wanted.kind == "exp_avg_sq" and (wanted.tensor < 0).any()):
            raise UserError(no_number(self.folder, wanted.kind, wanted.name))

    def _other(self, kind: str, name: str, stored: int, wanted: int) -> str:
        return (
            f"{self.folder} holds {stored} of {wanted} elements of {kind} {name}: it belongs to another encoder or "
            "projector. Give this run a run.dir of its own."
        )


def full_weights(
    engine: Engine[Unsee], prefix: str, group: dist.ProcessGroup | None = None
) -> dict[str, Tensor]:
    """The whole fp32 masters under `prefix` (a submodule's name) on rank 0's CPU, {} elsewhere. Collective.

    Names are the submodule's own. group: a gloo group of all ranks; over nccl, rank 0's GPU would have to hold all ranks' parts.
    """
    module = engine.module.get_submodule(prefix)
    shapes = {name: getattr(p, "ds_shape", p.shape) for name, p in module.named_parameters()}
    own: list[MasterRange] = [
        (shard.name.removeprefix(f"{prefix}."), shard.start, shard.master.cpu())
        for shard in engine.shards
        if shard.name.startswith(f"{prefix}.")
    ]
    collected: list[list[MasterRange]] = [own] * engine.world.size if engine.world.rank == 0 else []
    if engine.world.size > 1 and engine.stage > 0:
        received = [own] * engine.world.size if engine.world.rank == 0 else None  # every item is replaced
        dist.gather_object(own, received, dst=0, group=group)
        collected = received or []
    whole = {name: torch.empty(shape.numel()) for name, shape in shapes.items()} if collected else {}
    for each in collected:
        for name, start, values in each:
            whole[name][start : start + len(values)] = values
    return {name: values.view(shapes[name]) for name, values in whole.items()}
