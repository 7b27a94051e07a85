"""Types of what is used of DeepSpeed's engine, optimizers and parameters: DeepSpeed itself has none.

Read from deepspeed 0.19.8; tests/procs/test_engine.py fails when another version changes these attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn


class DeepSpeedEngine(Protocol):
    """What `deepspeed.initialize` returns first."""

    module: nn.Module
    enable_backward_allreduce: bool
    __call__: Callable[..., object]

    def train(self, mode: bool) -> None: ...

    def backward(self, loss: Tensor) -> None: ...

    def step(self) -> None: ...

    def was_step_applied(self) -> bool: ...

    def zero_grad(self) -> None: ...

    def destroy(self) -> None: ...


class WrappingOptimizer(Protocol):
    """An optimizer of DeepSpeed's around one of torch's."""

    optimizer: torch.optim.Optimizer
    loss_scale: float  # the loss is multiplied by it (not at stage 0), the gradients are divided by it

    def zero_grad(self) -> None: ...


class ReplicatedOptimizer(WrappingOptimizer, Protocol):
    """Stage 0 in bf16 or fp16: the low-precision parameters and their fp32 masters, by group."""

    fp16_groups: list[list[nn.Parameter]]
    fp32_groups: list[list[Tensor]]
    step: Callable[[], None]


class FlatOptimizer(WrappingOptimizer, Protocol):
    """Stages 1 and 2: a flat fp32 tensor for each group, of which each rank has a part."""

    bit16_groups: list[list[FlatParameter]]
    single_partition_of_fp32_groups: list[Tensor]
    averaged_gradients: dict[int, list[Tensor] | None]
    all_grad_tensors: dict[int, list[Tensor] | None]
    gradient_average: bool
    allreduce_bucket: Callable[..., Tensor]
    flatten: Callable[[list[Tensor]], Tensor]
    check_grad_overflow: bool
    compute_grad_norm: bool

    def update_lp_params(self) -> None: ...

    def _lazy_init_hp_params_optimizer_state(self) -> None: ...


class PartitionedOptimizer(WrappingOptimizer, Protocol):
    """Stage 3: every parameter is partitioned over the ranks."""

    fp16_groups: list[list[PartitionedParameter]]
    fp32_partitioned_groups_flat: list[Tensor]
    grad_position: dict[int, tuple[int, int, int]]
    averaged_gradients: dict[int, list[Tensor]]
    persistent_parameters: list[PartitionedParameter]
    parameter_offload: object
    check_overflow: Callable[[], None]
    _get_norm_groups: Callable[[], list[Tensor]]

    def get_param_id(self, parameter: PartitionedParameter) -> int: ...

    def _partition_all_parameters(self) -> None: ...

    def _reassign_or_swap_out_partitioned_parameters(self, group: int) -> None: ...


Optimizer = torch.optim.Optimizer | ReplicatedOptimizer | FlatOptimizer | PartitionedOptimizer


class Fragment(Protocol):
    """A range of elements."""

    start: int
    numel: int


class FragmentAddresses(Protocol):
    """Where a rank's part of a parameter is: in the flattened parameter, and in the flat tensor of its group."""

    lp_fragment_address: Fragment
    hp_fragment_address: Fragment


class FlatParameter(nn.Parameter):
    """A parameter of stages 1 and 2, with what DeepSpeed adds to it. None: this rank has no part of it."""

    _hp_mapping: FragmentAddresses | None


class ParameterStatus(Protocol):
    name: str


class PartitionedParameter(nn.Parameter):
    """A parameter of stage 3, with what DeepSpeed adds to it. ds_tensor: this rank's part, padded."""

    ds_numel: int
    ds_tensor: Tensor
    ds_status: ParameterStatus
    partition: Callable[[], None]
    all_gather: Callable[[list[PartitionedParameter]], None]
