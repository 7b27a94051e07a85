"""The only user of deepspeed: forward, backward, one all-reduce, step.

A step is: `engine(...)`, `backward(loss)`, `reduce(values)` (one all-reduce, and the only time that the host waits in a
step: global loss, terms and gradient norm), then `step(lr, norm)` or `discard()`.
Gradients are the mean over ranks. Precision bf16/fp16: low-precision parameters, fp32 masters.

Norm, overflow and clipping are `reduce`'s and `step`'s own, and switched off in deepspeed, which would reduce the same norm
again (once a group of parameters, and once to clip) and wait for it: 1 to 2 collectives and 3 host reads a step below stage 3.

deepspeed multiplies the loss by its loss scale and divides the gradients by it, but at stage 0 it only divides. It is given
fp16's scale (loss_scale.py) for the backward; at stages 1 and 2 gradients are averaged by masters.average_in_fp32.
"""

from __future__ import annotations

import logging
import math
import warnings
from typing import Any, Generic, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unsee_dist.config.sections import Precision
from unsee_dist.distributed import masters
from unsee_dist.distributed.deepspeed_import import import_deepspeed
from unsee_dist.distributed.deepspeed_types import (
    DeepSpeedEngine,
    FlatOptimizer,
    Optimizer,
)
from unsee_dist.distributed.deterministic import prepare_cublas, sums_in_order
from unsee_dist.distributed.loss_scale import LossScale
from unsee_dist.distributed.memory import memory_for_state
from unsee_dist.distributed.weight_writes import WeightWrites
from unsee_dist.distributed.world import World, print_on_rank_0
from unsee_dist.errors import UserError

BETAS, EPS = (0.9, 0.999), 1e-8  # AdamW's own, as in the paper's code
BUCKET = 500_000_000  # gradients in one reduction at most: deepspeed's own default


Trained = TypeVar("Trained", bound=nn.Module)


class Engine(Generic[Trained]):
    """A module under ZeRO `stage` with AdamW. `shards`: this rank's master weights, views. clip: 0 is none. waiting: the child
    whose weights `hold` keeps as they are."""

    def __init__(  # noqa: PLR0913  (every choice of an engine, by keyword)
        self,
        module: Trained,
        world: World,
        stage: int,
        precision: Precision,
        *,
        weight_decay: float,
        clip: float,
        waiting: str = "",
    ) -> None:
        deepspeed = import_deepspeed()
        check_precision(precision, world)
        prepare_cublas()
        # For the whole process, since deepspeed logs and warns in every step: its own logger, and the one FutureWarning
        # that its collectives cause (torch raises it in c10d_logger).
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        warnings.filterwarnings(
            "ignore",
            r".*torch.distributed.* is deprecated",
            FutureWarning,
            module=r"torch\.distributed\.c10d_logger",
        )
        deepspeed.init_distributed(dist_backend=dist.get_backend(), auto_mpi_discovery=False, verbose=False)
        # else deepspeed clones the group: two NCCL communicators, whose collectives may run at once in another order on
        # another rank, and then wait for each other
        deepspeed.utils.groups._WORLD_GROUP = dist.group.WORLD
        self.world, self.stage, self.precision = world, stage, precision
        names = {p: name for name, p in module.named_parameters() if p.requires_grad}
        initial = {name: p.detach().clone() for p, name in names.items()}
        groups, self._waiting, self._held = parameter_groups(module, weight_decay), 0, False
        if waiting:
            child = module.get_submodule(waiting)
            held, others = (_part(groups, child, inside) for inside in (True, False))
            groups, self._waiting = [*held, *others], len(held)
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPS, fused=True)
        self.engine: DeepSpeedEngine
        self.optimizer: Optimizer
        size = sum(p.numel() for p in names)
        with memory_for_state():
            self.engine, self.optimizer, _, _ = deepspeed.initialize(
                model=module,
                optimizer=optimizer,
                config=deepspeed_config(stage, precision, world.size, size),
                dist_init_required=False,
            )
        if world.size == 1 and stage == 0:
            self.engine.enable_backward_allreduce = (
                False  # it would flatten and copy all gradients for no other rank
            )
        self.clip = clip
        masters.leave_norms_out(self.optimizer, stage)
        if stage in (1, 2):
            masters.average_in_fp32(cast("FlatOptimizer", self.optimizer))
        self.loss_scale = LossScale() if precision == "fp16" else None
        self.writes = WeightWrites.of(self.optimizer, stage)
        self.parameters = list(names)
        self.shards = masters.shards(self.optimizer, stage, names, world.rank)
        self._create_moments()
        # deepspeed copies its masters from the rounded low-precision weights; start from the fp32 ones
        for shard in self.shards:
            shard.master.copy_(initial[shard.name].view(-1)[shard.start : shard.start + shard.length])
        self.refresh()

    @property
    def module(self) -> Trained:
        """The module as given; its trainable parameters now belong to deepspeed."""
        return cast("Trained", self.engine.module)

    def __call__(self, *args: object, **kwargs: object) -> Any:  # what the module returns
        with sums_in_order(self.world.device):
            return self.engine(*args, **kwargs)

    def train(self, mode: bool = True) -> None:
        self.engine.train(mode)

    def backward(self, loss: Tensor) -> None:
        self._set_divisor(self._loss_scale)
        if self.stage == 0 and self.loss_scale is not None:
            loss = loss * self._loss_scale
        with sums_in_order(self.world.device):
            self.engine.backward(loss)

    def reduce(self, values: Tensor) -> tuple[list[float], float]:
        """Mean over ranks of `values` (n,) and the gradient norm before clipping, both non-finite if any rank's is."""
        square = masters.gradient_square(self.optimizer, self.stage, self.parameters, self.world.rank)
        if self.stage == 0:
            square = square / self.world.size
        report = torch.cat([values.detach().double() / self.world.size, square.view(1)])
        if self.world.size > 1:
            dist.all_reduce(report)
        *means, total = report.tolist()
        return means, math.sqrt(total) / self._loss_scale if total >= 0 else math.nan

    def hold(self, held: bool) -> None:
        """Whether the next steps leave the child's weights as they are: at a rate of 0 AdamW changes no bit of them, and keeps
        the averages of their gradients."""
        self._held = held

    def step(self, lr: float, norm: float) -> None:
        """Apply the gradients, clipped. norm: as `reduce` returned it, finite."""
        for number, group in enumerate(self._adam.param_groups):
            group["lr"] = 0.0 if self._held and number < self._waiting else lr
        divisor = self._loss_scale
        if self.clip:
            divisor *= max(1.0, (norm + 1e-6) / self.clip)  # torch.nn.utils.clip_grad_norm_
        self._set_divisor(divisor)
        if isinstance(self.optimizer, torch.optim.Optimizer) and divisor != 1.0:
            torch._foreach_mul_([p.grad for p in self.parameters if p.grad is not None], 1 / divisor)
        with self.writes.ordered():
            self.engine.step()
        assert self.engine.was_step_applied()  # deepspeed has nothing left to refuse it for
        if self.loss_scale is not None:
            self.loss_scale.raise_when_steady()

    def discard(self) -> None:
        """Drop the gradients of this step; no weight changes."""
        masters.discard_gradients(self.engine, self.optimizer, self.stage)

    def lower_loss_scale(self) -> bool:
        """After gradients that are not finite while the loss is. False: no fp16, or the scale is as low as it goes."""
        return self.loss_scale is not None and self.loss_scale.lower()

    @property
    def _loss_scale(self) -> float:
        return 1.0 if self.loss_scale is None else self.loss_scale.value

    def _set_divisor(self, value: float) -> None:
        if not isinstance(self.optimizer, torch.optim.Optimizer):
            self.optimizer.loss_scale = value

    def refresh(self) -> None:
        """Call after writing to the shards' masters."""
        with self.writes.ordered():
            masters.refresh(self.optimizer, self.stage, self.shards)

    def moments(self, shard: masters.Shard) -> tuple[Tensor, Tensor]:
        """Adam's exp_avg and exp_avg_sq of the shard, views."""
        state = self._adam.state[shard.flat]
        return shard.of(state["exp_avg"]), shard.of(state["exp_avg_sq"])

    def updates(self) -> int:
        """Adam's count of applied steps."""
        return int(self._adam.state[self.shards[0].flat]["step"]) if self.shards else 0

    def set_updates(self, count: int) -> None:
        for state in self._adam.state.values():
            state["step"].fill_(count)

    @property
    def _adam(self) -> torch.optim.Optimizer:
        inner = self.optimizer
        return inner if isinstance(inner, torch.optim.Optimizer) else inner.optimizer

    def _create_moments(self) -> None:
        """Adam's state from zero: it must exist before a first step to be loaded, and stage 0 in bf16 has
        already stepped once on zero gradients (which decays the weights)."""
        adam = self._adam
        for shard in self.shards:
            adam.state[shard.flat] = {
                "step": torch.zeros((), dtype=torch.float32, device=shard.flat.device),
                "exp_avg": torch.zeros_like(shard.flat),
                "exp_avg_sq": torch.zeros_like(shard.flat),
            }
        if self.stage in (1, 2):
            cast("FlatOptimizer", self.optimizer)._lazy_init_hp_params_optimizer_state()


def check_precision(precision: Precision, world: World) -> None:
    """UserError for one that this device lacks; a line for one that it computes slowly."""
    if precision == "fp16" and world.device.type != "cuda":
        raise UserError("parallel.precision = fp16 needs a GPU. Write bf16 or fp32 on a CPU.")
    if precision == "bf16" and world.device.type == "cpu" and not cpu_computes_bf16():
        print_on_rank_0(
            world,
            "parallel.precision = bf16: this CPU has no bf16 instructions and multiplies tens of times slower than "
            "in fp32. Write parallel.precision=fp32.",
        )


def cpu_computes_bf16() -> bool:
    """Whether oneDNN has a kernel for bf16 matrices on this CPU. On AVX2 alone a (512, 256) by (256, 1024) product
    took 640 ms, in fp32 11 ms."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The paper's groups: no decay for biases and normalisation (every parameter of fewer than two dimensions)."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in trainable if p.ndim >= 2]
    vectors = [p for p in trainable if p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _part(groups: list[dict[str, Any]], child: nn.Module, inside: bool) -> list[dict[str, Any]]:
    """The groups without the parameters that are not inside of the child, or not outside; none is empty."""
    own = set(child.parameters())
    parts = [group | {"params": [p for p in group["params"] if (p in own) == inside]} for group in groups]
    return [part for part in parts if part["params"]]


def deepspeed_config(stage: int, precision: Precision, ranks: int, size: int) -> dict[str, object]:
    """The whole configuration of deepspeed for a module of `size` trainable numbers.

    Defaults that would change a result are written out: clipping (1.0 since 0.19.3; the engine clips) and the dtype gradients
    are averaged in.
    The bucket of gradients is memory that is taken whole: deepspeed's own is 2 GB in fp32, whatever the module.
    """
    return {
        "train_micro_batch_size_per_gpu": 1,  # only deepspeed's own counters read this
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,
        "zero_optimization": {"stage": stage, "reduce_bucket_size": min(size, BUCKET)},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": precision == "bf16", "check_grad_overflow": False},  # `reduce` has checked
        "fp16": {"enabled": precision == "fp16", "loss_scale": 1.0},  # static: the engine sets it
        "communication_data_type": "fp32",
        "steps_per_print": 10**12,
        "timers": {"throughput": {"enabled": False}},  # it waits for the GPU twice a step
        "train_batch_size": ranks,
    }
