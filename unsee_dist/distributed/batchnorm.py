"""Batch normalisation over the global batch, of all views at once: one collective forward and one backward.

    μ = Σ z / N      σ² = Σ (z − μ)² / N      ŷ = (z − μ) / √(σ² + ε)      y = ŷ · weight + bias
    ∂L/∂z = (g − Σ g / N − ŷ · Σ gŷ / N) / √(σ² + ε)                        g = ∂L/∂ŷ

Σ runs over the sentences of all ranks and N counts them, so parts may differ in size. Always on batch statistics, without
running ones: the network that has this layer is dropped at inference. Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1;
torch.nn.SyncBatchNorm refuses CPU and BatchNorm1d a bf16 engine on CPU.

One sum forward: each rank centres its sentences on its own mean m in fp32, and what is added up over ranks, Σ z and Σ z² =
Σ (z − m)² + ..., is float64. What cancels there is a 10⁻¹⁶ of μ², below the rounding of fp32's own z for every |μ| / σ < 10⁸
(in fp32 Σz²/N − μ² cancels: the control of test_batchnorm.py).

Shapes: V views with statistics of their own, B sentences on this rank, D features.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from unsee_dist.distributed.reduce import Reduction


class SyncBatchNorm(nn.Module):
    """(V, B, D) or (B, D) to the same in the input's dtype; inside fp32 (float64 for float64), whatever the parameters are."""

    def __init__(self, features: int, reduction: Reduction, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.reduction, self.eps = reduction, eps
        self.weight = nn.Parameter(torch.ones(features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(features)) if affine else None

    def forward(self, z_VBD: Tensor) -> Tensor:
        wide_VBD = z_VBD.to(torch.promote_types(z_VBD.dtype, torch.float32))
        y_VBD: Tensor = _Normalise.apply(wide_VBD, self.reduction, self.eps)
        if self.weight is not None and self.bias is not None:
            y_VBD = y_VBD * self.weight.to(y_VBD.dtype) + self.bias.to(y_VBD.dtype)
        return y_VBD.to(z_VBD.dtype)


class _Context(torch.autograd.function.FunctionCtx):
    """What forward keeps for backward. saved_tensors: ŷ (V, B, D), 1 / √(σ² + ε) (V, 1, D) and N, 0-d."""

    reduction: Reduction
    saved_tensors: tuple[Tensor, Tensor, Tensor]


class _Normalise(torch.autograd.Function):
    """ŷ of z, both (V, B, D), with the gradient of all ranks' losses."""

    @staticmethod
    def forward(ctx: _Context, z_VBD: Tensor, reduction: Reduction, eps: float) -> Tensor:
        own_V1D = z_VBD.mean(-2, keepdim=True)
        centred_VBD = z_VBD - own_V1D
        first, second, count = _sums(centred_VBD, own_V1D.double(), reduction)
        mean_V1D = first / count
        variance_V1D = (second / count - mean_V1D.square()).clamp(min=0)
        scale_V1D = (variance_V1D + eps).rsqrt().to(z_VBD.dtype)
        y_VBD = (centred_VBD - (mean_V1D - own_V1D).to(z_VBD.dtype)) * scale_V1D
        ctx.reduction = reduction
        ctx.save_for_backward(y_VBD, scale_V1D, count.to(z_VBD.dtype))
        return y_VBD

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, g_VBD: Tensor) -> tuple[Tensor, None, None]:
        y_VBD, scale_V1D, count = ctx.saved_tensors
        sums = torch.stack([g_VBD.sum(-2, keepdim=True), (g_VBD * y_VBD).sum(-2, keepdim=True)])
        first_V1D, second_V1D = ctx.reduction.sum_gradient(sums) / count
        return (g_VBD - first_V1D - y_VBD * second_V1D) * scale_V1D, None, None


def _sums(centred_VBD: Tensor, own_V1D: Tensor, reduction: Reduction) -> tuple[Tensor, Tensor, Tensor]:
    """Σ z and Σ z² (V, 1, D) and N, 0-d, over all ranks, float64; from z − m and m, the float64 of this rank's fp32 mean.

    The count travels with the sums and stays on the device: no collective of its own, and no host waits for it.
    """
    rows = centred_VBD.shape[-2]
    rest_V1D = centred_VBD.sum(-2, keepdim=True).double()  # what rounding has left in the mean
    first = rows * own_V1D + rest_V1D
    second = centred_VBD.square().sum(-2, keepdim=True).double() + own_V1D * (first + rest_V1D)
    count = first.new_full((1,), rows)
    total = reduction.sum(torch.cat([first.flatten(), second.flatten(), count]))
    first_total, second_total = total[:-1].view(2, *first.shape)
    return first_total, second_total, total[-1]
