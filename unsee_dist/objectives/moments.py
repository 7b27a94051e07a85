"""Second moments of views over the global batch, for the objectives: one collective for all of them, none in backward.

    S(z) = Σ_b (z_b − μ)ᵀ(z_b − μ)          ∂L/∂z_b = (z_b − μ)(G + Gᵀ) + ∂L/∂μ / N          G = ∂L/∂S
    C(x, y) = Σ_b (x_b − μ_x)ᵀ(y_b − μ_y)    ∂L/∂x_b = (y_b − μ_y) Gᵀ,  ∂L/∂y_b = (x_b − μ_x) G

Every rank has S, so every rank has G: it knows the gradient of the global loss with respect to its own sentences (S does not
change with μ, since Σ (z − μ) = 0).

Each rank multiplies what it has centred on its own mean m, in the precision of z; the part between ranks, n mᵀm, and the sum
over ranks are float64. What cancels in Σ zᵀz − N μᵀμ is then 10⁻¹⁶ of μ², below the rounding of fp32's own z for every
|μ| / σ < 10⁸. (Centred on the mean of all ranks, which has to be sent first, it is one collective more.)

Shapes: V views, B sentences on this rank, N = R·B over all ranks, D features. A matrix is sent in half: two symmetric ones
are the triangles of one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unsee_dist.distributed.reduce import Reduction


class Scatter(NamedTuple):
    """Σ (z − μ)ᵀ(z − μ) (V, D, D) over the global batch and μ (V, D), the same bits on every rank."""

    mean_VD: Tensor
    scatter_VDD: Tensor


class Cross(NamedTuple):
    """Σ (x − μ_x)² and Σ (y − μ_y)² (V, D) and Σ (x − μ_x)ᵀ(y − μ_y) (V, D, D) over the global batch."""

    online_VD: Tensor
    target_VD: Tensor
    cross_VDD: Tensor


def pairs(online: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(V, B, D) of both, in one dtype: V pairs of views of the same sentences. (B, D) is one pair.

    fp32 or float64: low precision never enters an objective.
    """
    assert online.shape == target.shape, (online.shape, target.shape)
    assert {online.dtype, target.dtype} <= {torch.float32, torch.float64}, (online.dtype, target.dtype)
    shape, dtype = (-1, *online.shape[-2:]), torch.promote_types(online.dtype, target.dtype)
    return online.reshape(shape).to(dtype), target.reshape(shape).to(dtype)


def scatters(online_VBD: Tensor, target_VBD: Tensor, reduction: Reduction) -> tuple[Scatter, Scatter]:
    """Of the online and of the target views, in their dtype, with gradient. Collective: one sum of V D² + 3 V D numbers."""
    mean_x, x_VDD, mean_y, y_VDD = _Scatter.apply(online_VBD, target_VBD, reduction)
    return Scatter(mean_x, x_VDD), Scatter(mean_y, y_VDD)


def cross(online_VBD: Tensor, target_VBD: Tensor, reduction: Reduction) -> Cross:
    """Of each pair of views, in their dtype, with gradient. Collective: one sum of V D² + 4 V D numbers."""
    return Cross(*_Cross.apply(online_VBD, target_VBD, reduction))


def off_diagonal(square_VDD: Tensor) -> Tensor:
    """The same matrices with zeros on their diagonals."""
    return square_VDD - torch.diag_embed(square_VDD.diagonal(dim1=-2, dim2=-1))


def mean_squared_error(online_VBD: Tensor, target_VBD: Tensor) -> Tensor:
    """Σ over pairs of views of the mean of (x − y)² over this rank's sentences and the features."""
    return (online_VBD - target_VBD).square().mean((-2, -1)).sum()


class _Context(torch.autograd.function.FunctionCtx):
    """What forward keeps for backward. saved_tensors: both views, centred on the mean of all ranks."""

    reduction: Reduction
    saved_tensors: tuple[Tensor, Tensor]
    needs_input_grad: tuple[bool, bool, bool]


class _Scatter(torch.autograd.Function):
    """μ and S of x, μ and S of y."""

    @staticmethod
    def forward(
        ctx: _Context, x_VBD: Tensor, y_VBD: Tensor, reduction: Reduction
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        (x_VBD, own_x), (y_VBD, own_y) = _centred(x_VBD), _centred(y_VBD)
        mean_x, x_VDD, mean_y, y_VDD = own_x, x_VBD.mT @ x_VBD, own_y, y_VBD.mT @ y_VBD
        if reduction.size > 1:
            rows = x_VBD.shape[1]
            mean_x, x_VDD, mean_y, y_VDD = _scatters_of_all(own_x, x_VDD, own_y, y_VDD, rows, reduction)
        ctx.reduction = reduction
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(_recentred(x_VBD, own_x, mean_x), _recentred(y_VBD, own_y, mean_y))
        dtype = x_VBD.dtype
        return mean_x.to(dtype), x_VDD.to(dtype), mean_y.to(dtype), y_VDD.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, *grads: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        def gradient(view: int) -> Tensor | None:
            if not ctx.needs_input_grad[view]:
                return None
            z_VBD, mean_VD, scatter_VDD = ctx.saved_tensors[view], grads[2 * view], grads[2 * view + 1]
            if scatter_VDD is None:
                gradient_VBD = torch.zeros_like(z_VBD)
            else:
                gradient_VBD = z_VBD @ (scatter_VDD + scatter_VDD.mT)
            if mean_VD is not None:
                gradient_VBD += mean_VD[:, None] / (z_VBD.shape[1] * ctx.reduction.size)
            return ctx.reduction.shared_gradient(gradient_VBD)

        return gradient(0), gradient(1), None


class _Cross(torch.autograd.Function):
    """The diagonals of S(x) and S(y), and C(x, y)."""

    @staticmethod
    def forward(
        ctx: _Context, x_VBD: Tensor, y_VBD: Tensor, reduction: Reduction
    ) -> tuple[Tensor, Tensor, Tensor]:
        (x_VBD, own_x), (y_VBD, own_y) = _centred(x_VBD), _centred(y_VBD)
        squares_x, squares_y = x_VBD.square().sum(1), y_VBD.square().sum(1)
        mean_x, mean_y, cross_VDD = own_x, own_y, x_VBD.mT @ y_VBD
        if reduction.size > 1:
            rows, count = x_VBD.shape[1], x_VBD.shape[1] * reduction.size
            *means, squares_x, squares_y, cross_VDD = _sum(
                reduction,
                own_x,
                own_y,
                squares_x + rows * own_x.square(),
                squares_y + rows * own_y.square(),
                _with_mean(cross_VDD, own_x, own_y, rows),
            )
            mean_x, mean_y = (mean / reduction.size for mean in means)
            squares_x = (squares_x - count * mean_x.square()).clamp(min=0)
            squares_y = (squares_y - count * mean_y.square()).clamp(min=0)
            cross_VDD = _with_mean(cross_VDD, mean_x, mean_y, -count)
        ctx.reduction = reduction
        ctx.save_for_backward(_recentred(x_VBD, own_x, mean_x), _recentred(y_VBD, own_y, mean_y))
        return squares_x.to(x_VBD.dtype), squares_y.to(x_VBD.dtype), cross_VDD.to(x_VBD.dtype)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: _Context, online_VD: Tensor, target_VD: Tensor, cross_VDD: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:
        x_VBD, y_VBD = ctx.saved_tensors
        shared = ctx.reduction.shared_gradient
        of_x, of_y, _ = ctx.needs_input_grad
        return (
            shared(y_VBD @ cross_VDD.mT + 2 * x_VBD * online_VD[:, None]) if of_x else None,
            shared(x_VBD @ cross_VDD + 2 * y_VBD * target_VD[:, None]) if of_y else None,
            None,
        )


def _scatters_of_all(
    own_x: Tensor, x_VDD: Tensor, own_y: Tensor, y_VDD: Tensor, rows: int, reduction: Reduction
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """μ and S of x and of y over all ranks, from this rank's own, float64. rows: of this rank."""
    x_VDD, y_VDD = _with_mean(x_VDD, own_x, own_x, rows), _with_mean(y_VDD, own_y, own_y, rows)
    both_VDD = x_VDD.triu(1) + y_VDD.tril()
    *means, diagonal_VD, both_VDD = _sum(reduction, own_x, own_y, _diagonal(x_VDD), both_VDD)
    mean_x, mean_y = (mean / reduction.size for mean in means)
    upper_VDD, lower_VDD = both_VDD.triu(1), both_VDD.tril(-1)
    x_VDD = upper_VDD + upper_VDD.mT + torch.diag_embed(diagonal_VD)
    y_VDD = lower_VDD + lower_VDD.mT + torch.diag_embed(_diagonal(both_VDD))
    count = rows * reduction.size
    x_VDD, y_VDD = _with_mean(x_VDD, mean_x, mean_x, -count), _with_mean(y_VDD, mean_y, mean_y, -count)
    return mean_x, x_VDD, mean_y, y_VDD


def _diagonal(square_VDD: Tensor) -> Tensor:
    return square_VDD.diagonal(dim1=1, dim2=2)


def _centred(z_VBD: Tensor) -> tuple[Tensor, Tensor]:
    """z on this rank's own mean, in its dtype, and that mean (V, D), float64."""
    wide_VBD = z_VBD.double()
    own_VD = wide_VBD.mean(1)
    return (wide_VBD - own_VD[:, None]).to(z_VBD.dtype), own_VD


def _recentred(centred_VBD: Tensor, own_VD: Tensor, mean_VD: Tensor) -> Tensor:
    return centred_VBD - (mean_VD - own_VD)[:, None].to(centred_VBD.dtype)


def _with_mean(products_VDD: Tensor, left_VD: Tensor, right_VD: Tensor, count: int) -> Tensor:
    """products + count · leftᵀ right, float64."""
    return torch.baddbmm(products_VDD.double(), left_VD[:, :, None], right_VD[:, None], alpha=count)


def _sum(reduction: Reduction, *parts: Tensor) -> list[Tensor]:
    """Σ over ranks of each of the parts, in one collective."""
    total = reduction.sum(torch.cat([part.flatten() for part in parts]))
    split = total.split([part.numel() for part in parts])
    return [summed.view(part.shape) for summed, part in zip(split, parts, strict=True)]
