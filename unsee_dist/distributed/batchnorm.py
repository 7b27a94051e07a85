"""Batch normalisation over the global batch.

    μ = Σ z / N      σ² = Σ (z − μ)² / N      y = (z − μ) / √(σ² + ε) · weight + bias

Σ runs over the sentences of all ranks and N counts them, so parts may differ in size. Two passes, since
Σz²/N − μ² cancels in fp32. Always on batch statistics, without running ones: whatever carries this layer
(projector, objective) is dropped at inference. Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1;
torch.nn.SyncBatchNorm refuses CPU and BatchNorm1d a bf16 engine on CPU.

Shapes: B sentences on this rank, D features. One call is one view: views do not share statistics.
"""

import torch
from torch import Tensor, nn

from unsee_dist.distributed.reduce import Reduction


class SyncBatchNorm(nn.Module):
    """(B, D) to (B, D) in the input's dtype; inside fp32 (float64 for float64), whatever the parameters are."""

    def __init__(self, features: int, reduction: Reduction, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.reduction, self.eps = reduction, eps
        self.weight = nn.Parameter(torch.ones(features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(features)) if affine else None

    def forward(self, z_BD: Tensor) -> Tensor:
        wide_BD = z_BD.to(torch.promote_types(z_BD.dtype, torch.float32))
        # The count travels with the sums (one collective fewer) and stays on the device (no host waits for it).
        sums = self.reduction.sum(torch.cat([wide_BD.sum(0), wide_BD.new_full((1,), len(wide_BD))]))
        mean_D, count = sums[:-1] / sums[-1], sums[-1]
        centred_BD = wide_BD - mean_D
        variance_D = self.reduction.sum(centred_BD.square().sum(0)) / count
        y_BD = centred_BD * (variance_D + self.eps).rsqrt()
        if self.weight is not None and self.bias is not None:
            y_BD = y_BD * self.weight.to(y_BD.dtype) + self.bias.to(y_BD.dtype)
        return y_BD.to(z_BD.dtype)
