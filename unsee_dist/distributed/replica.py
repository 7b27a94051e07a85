"""Write sharded fp32 values into frozen parameters of the module: how the EMA reaches every rank's target.

Stage 0: every rank holds all values, nothing is sent. Stages 1-2: the parts are all-gathered in the target's
own dtype. Stage 3: each rank writes its part of the partitioned parameter, nothing is sent.
(deepspeed's `GatheredParameters` without `modifier_rank`, as in DeepSpeed-Chat's moving average, discards the write.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unsee_dist.distributed.collectives import all_gather
from unsee_dist.distributed.deepspeed_types import PartitionedParameter
from unsee_dist.distributed.masters import Shard
from unsee_dist.distributed.weight_writes import WeightWrites


class Replica:
    """Frozen parameters that must equal values held in parts like `shards`.

    frozen: the trainable parameter's name -> the frozen parameter of the same shape (at stage 3 deepspeed's own).
    writes: the engine's.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        frozen: Mapping[str, nn.Parameter],
        stage: int,
        size: int,
        writes: WeightWrites,
    ) -> None:
        self.shards, self.frozen, self.stage, self.size = tuple(shards), frozen, stage, size
        self.writes = writes
        if stage in (1, 2):
            self._plan_gather()

    @torch.no_grad()
    def publish(self, values: Sequence[Tensor]) -> None:
        """values[k]: (len,) fp32, this rank's part for shards[k]."""
        if self.stage == 0:
            torch._foreach_copy_([self.frozen[s.name].view(-1) for s in self.shards], list(values))
        elif self.stage == 3:
            self._write_partitions(values)
        else:
            self._gather(values)

    def _plan_gather(self) -> None:
        mine = [(s.name, s.start, s.length) for s in self.shards]
        parts: list[list[tuple[str, int, int]]] = [mine] * self.size
        if self.size > 1:
            dist.all_gather_object(parts, mine)
        longest = max(sum(length for _, _, length in part) for part in parts)
        example = next(iter(self.frozen.values()))
        self.gathered = torch.zeros(self.size * longest, dtype=example.dtype, device=example.device)
        self.mine = torch.zeros(longest, dtype=example.dtype, device=example.device)
        self.into: list[Tensor] = []
        self.out_of: list[Tensor] = []
        for rank, part in enumerate(parts):
            place = rank * longest
            for name, start, length in part:
                self.into.append(self.frozen[name].detach().view(-1)[start : start + length])
                self.out_of.append(self.gathered[place : place + length])
                place += length

    def _gather(self, values: Sequence[Tensor]) -> None:
        filled = sum(len(v) for v in values)
        if filled:
            torch._foreach_copy_(list(self.mine[:filled].split([len(v) for v in values])), list(values))
        if self.size > 1:
            all_gather(self.gathered, self.mine)
        else:
            self.gathered.copy_(self.mine)
        torch._foreach_copy_(self.into, self.out_of)

    def _write_partitions(self, values: Sequence[Tensor]) -> None:
        frozen = {name: cast("PartitionedParameter", parameter) for name, parameter in self.frozen.items()}
        with self.writes.ordered():
            parts = [frozen[shard.name].ds_tensor.view(-1)[: shard.length] for shard in self.shards]
            if parts:
                torch._foreach_copy_(parts, list(values))
        for parameter in frozen.values():
            # a gathered copy (deepspeed keeps small parameters gathered) would stay one step stale
            if parameter.ds_status.name == "AVAILABLE":
                parameter.partition()
