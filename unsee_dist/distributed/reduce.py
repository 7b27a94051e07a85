"""Sums over this rank's sentences become sums over the global batch, with their exact gradient.

Convention: the engine averages parameter gradients over ranks. When every rank computes the same loss L
from sums that are all-reduced with SUM forward and SUM backward, backward on all ranks together is the
gradient of Σ_r L = R·L, and the engine's average makes it that of L on the whole batch: nothing is ever
multiplied by the number of ranks. (A plain `dist.all_reduce` is invisible to autograd: the loss stays right
and the gradient becomes 1/R of it, lightly issue 1977.) A backward that is written out, of several sums at once, uses
`sum_gradient`, and sends all of them in one collective.

Shapes: B sentences on this rank, the same number on every rank; R ranks; D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from unsee_dist.distributed.collectives import all_gather


class _Context(torch.autograd.function.FunctionCtx):
    """What forward keeps for backward."""

    group: dist.ProcessGroup | None
    first: int
    rows: int


class _SumOverRanks(torch.autograd.Function):
    """y = Σ_r x_r on every rank; dx = Σ_r dy_r. Its own backward, so it can be differentiated again."""

    @staticmethod
    def forward(ctx: _Context, x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, None]:
        return _SumOverRanks.apply(grad, ctx.group), None


class _GatherRows(torch.autograd.Function):
    """y = the rows of all ranks in rank order; dx = this rank's rows of Σ_r dy_r."""

    @staticmethod
    def forward(
        ctx: _Context, rows_BD: Tensor, rank: int, size: int, group: dist.ProcessGroup | None
    ) -> Tensor:
        ctx.first, ctx.rows, ctx.group = rank * len(rows_BD), len(rows_BD), group
        gathered = rows_BD.new_empty(size * len(rows_BD), *rows_BD.shape[1:])
        all_gather(gathered, rows_BD.contiguous(), group=group)
        return gathered

    @staticmethod
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, None, None, None]:
        total = _SumOverRanks.apply(grad, ctx.group)
        return total.narrow(0, ctx.first, ctx.rows), None, None, None


@dataclass(frozen=True)
class Reduction:
    """This rank's place among those that share a global batch, and the sums and rows over all of them.

    `Reduction()` is a single process: every method is then the identity. `group` None is torch's default
    process group. All methods are collective: every rank calls them, in the same order.

        >>> Reduction().sum(torch.ones(3))
        tensor([1., 1., 1.])
    """

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None

    def sum(self, x: Tensor) -> Tensor:
        """Σ over ranks of `x` (one shape on all ranks), the same bits on every rank; with gradient."""
        return x if self.size == 1 else _SumOverRanks.apply(x, self.group)

    def sum_gradient(self, gradient: Tensor) -> Tensor:
        """In a backward that is written out: Σ over ranks of gradients of a sum, which differ between ranks."""
        return self.sum(gradient)

    def shared_gradient(self, gradient: Tensor) -> Tensor:
        """In a backward that is written out: Σ over ranks of gradients that are the same on every rank, since all compute
        the same loss from one sum. Nothing is sent."""
        return self.size * gradient

    def gather(self, rows_BD: Tensor) -> Tensor:
        """The (R·B, D) rows of all ranks, rank 0's first; with gradient to their owners."""
        return rows_BD if self.size == 1 else _GatherRows.apply(rows_BD, self.rank, self.size, self.group)

    def __deepcopy__(self, _memo: dict[int, object]) -> Reduction:
        """A copied module (the target's projector) uses the same process group, which cannot be copied."""
        return self
