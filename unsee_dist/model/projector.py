"""The online network's second half: embeddings to the space in which views are compared. Training only.

    block: Linear(d, f·d) · BatchNorm · ReLU · Linear(f·d, f·d) · ReLU · Linear(f·d, d)          f = 10

UNSEE (arXiv:2401.15316): the paper's text has one such block, its released code (asparius/UNSEE) stacks 4.
SimCSE (arXiv:2104.08821) trains with Linear + Tanh instead.

Shapes: B sentences on this rank, D = d features. Call it once per view: BatchNorm's statistics are per view.
"""

from typing import get_args

from torch import Tensor, nn

from unsee_dist.config.sections import ProjectorKind
from unsee_dist.distributed.batchnorm import SyncBatchNorm
from unsee_dist.distributed.reduce import Reduction
from unsee_dist.errors import UserError


def _block(width: int, hidden: int, reduction: Reduction) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden),
        SyncBatchNorm(hidden, reduction),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, width),
    )


class Projector(nn.Module):
    """(B, D) to (B, D), in the dtype of its parameters (bf16 in a bf16 engine). 0 blocks are the identity."""

    def __init__(self, width: int, blocks: int, factor: int, reduction: Reduction) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_block(width, factor * width, reduction) for _ in range(blocks)))

    def forward(self, z_BD: Tensor) -> Tensor:
        parameter = next(self.parameters(), None)
        return z_BD if parameter is None else self.blocks(z_BD.to(parameter.dtype))


class TanhHead(nn.Module):
    """SimCSE's training head, tanh(Wz + b): (B, D) to (B, D), in the dtype of its parameters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, z_BD: Tensor) -> Tensor:
        return self.linear(z_BD.to(self.linear.weight.dtype)).tanh()


def make_projector(kind: str, width: int, blocks: int, factor: int, reduction: Reduction) -> nn.Module:
    """`projector.kind`: "blocks" (a Projector) or "tanh" (a TanhHead, which has no blocks and no factor).

    Raises ValueError for another kind.
    """
    if kind == "blocks":
        return Projector(width, blocks, factor, reduction)
    if kind == "tanh":
        return TanhHead(width)
    raise UserError(f"projector.kind = {kind} is unknown. Use one of: {', '.join(get_args(ProjectorKind))}.")
