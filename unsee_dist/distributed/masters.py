"""The fp32 master weights of a ZeRO engine, as views that can be read and written in place.

The optimizer of stage 0 holds one tensor a parameter; stages 1-3 hold flat tensors of which each rank has a
part. Everything that must follow the weights exactly (EMA target, checkpoints, initial values) works on these
views, so that no stage is a special case above this file. deepspeed's `safe_get_*` and `safe_set_*` are not
used: silent no-ops at stage 0, and setting never refreshes the model's own weights.

Measured on deepspeed 0.19.8; test_engine.py fails when another version moves these attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unsee_dist.distributed.deepspeed_types import (
    DeepSpeedEngine,
    FlatOptimizer,
    Optimizer,
    PartitionedOptimizer,
    ReplicatedOptimizer,
)


@dataclass(frozen=True)
class Shard:
    """A contiguous part of one parameter on this rank: elements start..start+len of the flattened parameter.

    `flat` is the optimizer's tensor (the key of its state), `offset` where the part begins in it.
    """

    name: str
    parameter: nn.Parameter
    start: int
    flat: Tensor
    offset: int
    length: int

    @property
    def master(self) -> Tensor:
        """(length,) fp32, a view: writing to it writes the optimizer's weight."""
        return self.of(self.flat)

    def of(self, like_flat: Tensor) -> Tensor:
        """The same part of another tensor laid out like `flat` (an Adam moment)."""
        return like_flat.detach().view(-1)[self.offset : self.offset + self.length]


def shards(
    optimizer: Optimizer, stage: int, names: Mapping[nn.Parameter, str], rank: int
) -> tuple[Shard, ...]:
    """The trainable weights of this rank, in the optimizer's order."""
    if stage == 0:
        of_rank = _replicated(optimizer, names)
    elif stage == 3:
        of_rank = _flat_by_parameter(cast("PartitionedOptimizer", optimizer), names, rank)
    else:
        of_rank = _flat_by_group(cast("FlatOptimizer", optimizer), names)
    return tuple(shard for shard in of_rank if shard.length > 0)


def _replicated(optimizer: Optimizer, names: Mapping[nn.Parameter, str]) -> Iterator[Shard]:
    if isinstance(optimizer, torch.optim.Optimizer):  # fp32: the parameter is its own master
        pairs = [(p, p) for group in optimizer.param_groups for p in group["params"]]
    else:
        pairs = _pairs(cast("ReplicatedOptimizer", optimizer))
    for parameter, master in pairs:
        yield Shard(names[parameter], parameter, 0, master, 0, parameter.numel())


def _flat_by_group(optimizer: FlatOptimizer, names: Mapping[nn.Parameter, str]) -> Iterator[Shard]:
    for parameters, flat in zip(
        optimizer.bit16_groups, optimizer.single_partition_of_fp32_groups, strict=True
    ):
        for parameter in parameters:
            mapping = parameter._hp_mapping
            if mapping is not None:
                start, place = mapping.lp_fragment_address.start, mapping.hp_fragment_address
                yield Shard(names[parameter], parameter, int(start), flat, int(place.start), int(place.numel))


def _flat_by_parameter(
    optimizer: PartitionedOptimizer, names: Mapping[nn.Parameter, str], rank: int
) -> Iterator[Shard]:
    for parameters in optimizer.fp16_groups:
        for parameter in parameters:
            group, offset, length = optimizer.grad_position[optimizer.get_param_id(parameter)]
            start = rank * length
            kept = min(length, parameter.ds_numel - start)  # the last rank's part is padded
            flat = optimizer.fp32_partitioned_groups_flat[group]
            yield Shard(names[parameter], parameter, start, flat, offset, kept)


def gradient_square(optimizer: Optimizer, stage: int, parameters: list[nn.Parameter], rank: int) -> Tensor:
    """Sum of squares of the gradients this rank holds, 0-d float64. Call between backward and step.

    Stage 0: the whole gradient, the same on every rank; with masters they take it over here, since a norm needs it in fp32
    as their step does. Stages 1-3: this rank's part, to be summed.
    """
    if stage == 0 and isinstance(optimizer, torch.optim.Optimizer):
        return _square([p.grad for p in parameters if p.grad is not None])
    if stage == 0:
        return _square(_gradients_to_masters(cast("ReplicatedOptimizer", optimizer)))
    if stage == 3:
        return _square(list(_unpadded(cast("PartitionedOptimizer", optimizer), rank)))
    flat = cast("FlatOptimizer", optimizer)
    return _square([g for part in flat.averaged_gradients.values() if part is not None for g in part])


def _unpadded(optimizer: PartitionedOptimizer, rank: int) -> Iterator[Tensor]:
    for group, parts in optimizer.averaged_gradients.items():
        for parameter, part in zip(optimizer.fp16_groups[group], parts, strict=True):
            kept = min(part.numel(), parameter.ds_numel - rank * part.numel())
            if kept > 0:
                yield part.view(-1)[:kept]


def _square(gradients: list[Tensor]) -> Tensor:
    norms = torch._foreach_norm([g.detach() for g in gradients], 2, dtype=torch.float32)
    return torch.stack(list(norms)).double().square().sum()


def leave_norms_out(optimizer: Optimizer, stage: int) -> None:
    """Let the optimizer's step take its gradients as they are: the engine has reduced their norm and read it.

    deepspeed's own is once more all squares, a collective and a host read for each group of parameters.
    """
    if stage == 3:
        partitioned = cast("PartitionedOptimizer", optimizer)
        partitioned.check_overflow = lambda: None
        partitioned._get_norm_groups = lambda: [torch.ones(())]  # of the host: read without a wait
    elif stage > 0:
        flat = cast("FlatOptimizer", optimizer)
        flat.check_grad_overflow = flat.compute_grad_norm = False
    elif not isinstance(optimizer, torch.optim.Optimizer):
        replicated = cast("ReplicatedOptimizer", optimizer)
        replicated.step = lambda: _step_replicated(replicated)


def average_in_fp32(optimizer: FlatOptimizer) -> None:
    """Let stages 1 and 2 sum gradients over the ranks in fp32, divide there, and round once.

    deepspeed divides before the sum and in the gradients' own dtype, in which 5/3 + 7/3 - 4 is not 0; told to sum only, it
    rounds the sum, which is too large for fp16 where the mean is not.
    """

    def mean(
        bucket: list[Tensor],
        _dtype: torch.dtype,
        rank: int | None = None,
        process_group: dist.ProcessGroup | None = None,
        **_others: object,
    ) -> Tensor:
        """deepspeed's allreduce_bucket: the mean of the flat bucket, on rank `rank` of the group or, with None, on all."""
        flat = optimizer.flatten(bucket)
        whole = flat.float()
        if rank is None:
            dist.all_reduce(whole, group=process_group)
        else:
            dist.reduce(whole, group=process_group, group_dst=rank)
        if rank is None or rank == dist.get_rank(process_group):
            whole /= dist.get_world_size(process_group)
            if whole is not flat:
                flat.copy_(whole)
        return whole

    optimizer.gradient_average = False
    optimizer.allreduce_bucket = mean


def _pairs(optimizer: ReplicatedOptimizer) -> list[tuple[nn.Parameter, Tensor]]:
    """Each low-precision parameter and its fp32 master."""
    groups = zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True)
    return [pair for low, high in groups for pair in zip(low, high, strict=True)]


def _gradients_to_masters(optimizer: ReplicatedOptimizer) -> list[Tensor]:
    """Move the gradients to the masters, in their dtype: zeros where a parameter has none. Returns them."""
    gradients = []
    for parameter, master in _pairs(optimizer):
        gradient = parameter.grad
        master.grad = torch.zeros_like(master) if gradient is None else gradient.to(master.dtype)
        parameter.grad = None
        gradients.append(master.grad)
    return gradients


@torch.no_grad()
def _step_replicated(optimizer: ReplicatedOptimizer) -> None:
    """Adam on the fp32 masters, which have their gradients, and whose values the low-precision parameters then take."""
    low, high = zip(*_pairs(optimizer), strict=True)
    if optimizer.loss_scale != 1.0:
        torch._foreach_mul_([master.grad for master in high], 1 / optimizer.loss_scale)
    optimizer.optimizer.step()
    for master in high:
        master.grad = None
    torch._foreach_copy_(low, high)


def discard_gradients(engine: DeepSpeedEngine, optimizer: Optimizer, stage: int) -> None:
    """Drop the gradients of a backward, as if it had not run."""
    if stage == 0:
        engine.zero_grad()
        if not isinstance(optimizer, torch.optim.Optimizer):
            for _, master in _pairs(cast("ReplicatedOptimizer", optimizer)):
                master.grad = None
        return
    optimizer.zero_grad()
    if stage == 3:
        cast("PartitionedOptimizer", optimizer).averaged_gradients = {}
        return
    flat = cast("FlatOptimizer", optimizer)
    for group in flat.averaged_gradients:
        flat.averaged_gradients[group] = None
        flat.all_grad_tensors[group] = None


def refresh(optimizer: Optimizer, stage: int, all_shards: tuple[Shard, ...]) -> None:
    """Copy master weights that were written from outside into the model's own weights."""
    if stage == 0:
        with torch.no_grad():
            for shard in all_shards:
                if shard.flat is not shard.parameter:
                    shard.parameter.copy_(shard.flat)
    elif stage < 3:
        cast("FlatOptimizer", optimizer).update_lp_params()
    else:
        partitioned = cast("PartitionedOptimizer", optimizer)
        partitioned._partition_all_parameters()
        for group in range(len(partitioned.fp16_groups)):
            partitioned._reassign_or_swap_out_partitioned_parameters(group)
        if partitioned.persistent_parameters:
            partitioned.persistent_parameters[0].all_gather(partitioned.persistent_parameters)
