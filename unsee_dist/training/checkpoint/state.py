"""A run's state as named parts of flattened fp32 tensors, and back under any layout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor

from unsee_dist.distributed.engine import Engine
from unsee_dist.distributed.masters import Shard
from unsee_dist.distributed.one_module import send
from unsee_dist.distributed.shared_errors import share_errors
from unsee_dist.distributed.world import World
from unsee_dist.errors import UserError
from unsee_dist.model.target import Target
from unsee_dist.model.unsee import Unsee
from unsee_dist.training.checkpoint.manifest import Manifest
from unsee_dist.training.checkpoint.parts import (
    ADAM,
    BUFFERS,
    RANK,
    StoredPart,
    no_number,
    open_tensors,
    parts_in,
)


@dataclass(frozen=True)
class StateSlice:
    """`tensor` is elements start..start+len of the flattened `kind` of parameter `name`; a view that may be written."""

    kind: str
    name: str
    start: int
    tensor: Tensor

    @property
    def stop(self) -> int:
        return self.start + len(self.tensor)

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
    """What this rank writes: file name -> key -> tensor."""
    world = engine.world
    own = {each.key: each.tensor.detach() for each in own_slices(engine, target)}
    content = {f"{RANK}{world.rank:05d}.safetensors": own}
    if world.rank == 0:  # the objective's state: the only buffers that training moves, equal on every rank
        content[BUFFERS] = {name: b.detach() for name, b in engine.module.objective.named_buffers()}
    return content


def own_slices(engine: Engine[Unsee], target: Target | None) -> list[StateSlice]:
    """What this rank writes and reads. At stage 0 every rank holds everything, and has an N-th of it to do."""
    return [
        each
        for number, each in enumerate(state_slices(engine, target))
        if engine.stage > 0 or _owner(number, engine.world) == engine.world.rank
    ]


def _owner(number: int, world: World) -> int:
    """The rank that reads and writes this slice at stage 0."""
    return number % world.size


def load(folder: Path, manifest: Manifest, engine: Engine[Unsee], target: Target | None) -> None:
    """Fill engine and target from a verified folder. Collective; UserError on all ranks when parts are missing.

    A rank opens only the files with elements that it is to hold. What all ranks hold is read once and sent: everything at stage 0, and
    the objective's state.
    """
    world, buffers = engine.world, dict(engine.module.objective.named_buffers())
    with share_errors(world):
        reader = CheckpointReader(folder, manifest)
        trained = {n: p for n, p in engine.module.named_parameters() if p.requires_grad}
        reader.check_sizes({name: getattr(p, "ds_numel", p.numel()) for name, p in trained.items()})
        reader.fill(own_slices(engine, target))
        if world.rank == 0:
            _fill_buffers(folder, buffers)
    if world.size > 1:
        for name in sorted(buffers):
            send(buffers[name], 0)
        for number, each in enumerate(state_slices(engine, target) if engine.stage == 0 else ()):
            send(each.tensor, _owner(number, world))
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
    """The parts of a checkpoint by range, whatever layout wrote it."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest

    def check_sizes(self, wanted: Mapping[str, int]) -> None:
        """UserError: its parameters are not these, with so many elements each."""
        stored: dict[str, int] = defaultdict(int)
        for part in parts_in(self.manifest.files):
            if part.kind == "master":
                stored[part.name] = max(stored[part.name], part.stop)
        for name in [*wanted, *stored]:
            if stored.get(name) != wanted.get(name):
                raise UserError(self._other("master", name, stored.get(name, 0), wanted.get(name, 0)))

    def fill(self, wanted: Sequence[StateSlice]) -> None:
        """Copy the stored elements of each slice's range into its tensor. UserError: some are missing, or are no numbers.

        Opens one file at a time, and only those with such elements.
        """
        for name, reads in self._plan(wanted).items():
            self._read(self.folder / name, reads)
        for each in wanted:
            values = each.tensor
            if not values.isfinite().all() or (each.kind == "exp_avg_sq" and (values < 0).any()):
                raise UserError(no_number(self.folder, each.kind, each.name))

    def _plan(self, wanted: Sequence[StateSlice]) -> dict[str, list[tuple[StateSlice, StoredPart]]]:
        """File -> what of it goes where."""
        slices: dict[tuple[str, str], list[StateSlice]] = defaultdict(list)
        for each in wanted:
            slices[each.kind, each.name].append(each)
        reads: dict[str, list[tuple[StateSlice, StoredPart]]] = defaultdict(list)
        elements: dict[str, int] = defaultdict(int)
        for part in parts_in(self.manifest.files):
            for each in slices.get((part.kind, part.name), ()):
                common = min(each.stop, part.stop) - max(each.start, part.start)
                if common > 0:
                    reads[part.file].append((each, part))
                    elements[each.key] += common
        for each in wanted:
            if elements[each.key] != len(each.tensor):
                raise UserError(self._other(each.kind, each.name, elements[each.key], len(each.tensor)))
        return reads

    def _read(self, path: Path, reads: Sequence[tuple[StateSlice, StoredPart]]) -> None:
        file = open_tensors(path, "pt")
        try:
            for each, part in reads:
                first, last = max(each.start, part.start), min(each.stop, part.stop)
                stored = file.get_slice(part.key)[first - part.start : last - part.start]
                each.tensor[first - each.start : last - each.start] = stored
        except SafetensorError as error:
            raise UserError(f"{path} has changed since it was verified ({error})") from error

    def _other(self, kind: str, name: str, stored: int, wanted: int) -> str:
        return (
            f"{self.folder} holds {stored} of {wanted} elements of {kind} {name}: it belongs to another encoder or "
            "projector. Give this run a run.dir of its own."
        )


def full_weights(
    engine: Engine[Unsee], prefix: str, group: dist.ProcessGroup | None = None
) -> dict[str, Tensor]:
    """The whole fp32 masters of what is trained under `prefix` (a submodule's name) on rank 0's CPU, {} elsewhere. Collective.

    Names are the submodule's own. group: a gloo group of all ranks; over nccl they would go through the GPUs. A sum of the bits
    of each parameter, of which a rank has a part and zeros: neighbours exchange, and rank 0 is connected with few.
    """
    module = engine.module.get_submodule(prefix)
    shapes = {n: getattr(p, "ds_shape", p.shape) for n, p in module.named_parameters() if p.requires_grad}
    own: dict[str, list[Shard]] = defaultdict(list)
    for shard in engine.shards:
        own[shard.name].append(shard)
    rank, summed = engine.world.rank, engine.world.size > 1 and engine.stage > 0
    weights: dict[str, Tensor] = {}
    for name, shape in shapes.items() if summed or rank == 0 else ():
        whole = torch.zeros(shape.numel())
        for shard in own[f"{prefix}.{name}"]:
            whole[shard.start : shard.start + shard.length] = shard.master.cpu()
        if summed:
            dist.all_reduce(whole.view(torch.int32), group=group)
        if rank == 0:
            weights[name] = whole.view(shape)
    return weights
