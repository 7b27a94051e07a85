"""The online network's second half: embeddings to the space in which views are compared. Training only.

    block: Linear(d, f·d) · BatchNorm · ReLU · Linear(f·d, f·d) · ReLU · Linear(f·d, d)          f = 10

UNSEE (arXiv:2401.15316): the paper's text has one such block, its released code (asparius/UNSEE) stacks 4.
SimCSE (arXiv:2104.08821) trains with Linear + Tanh instead.

Shapes: V views, B sentences on this rank, D = d features. Views are projected together, since BatchNorm sends the statistics
of all in one collective; each has statistics of its own.
"""

from torch import Tensor, nn

from unsee_dist.config.sections import ProjectorSettings
from unsee_dist.distributed.batchnorm import SyncBatchNorm
from unsee_dist.distributed.reduce import Reduction


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
    """(V, B, D) or (B, D) to the same, in the dtype of its parameters (bf16 in a bf16 engine). 0 blocks are the identity."""

    def __init__(self, width: int, blocks: int, factor: int, reduction: Reduction) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_block(width, factor * width, reduction) for _ in range(blocks)))

    def forward(self, z_VBD: Tensor) -> Tensor:
        parameter = next(self.parameters(), None)
        return z_VBD if parameter is None else self.blocks(z_VBD.to(parameter.dtype))


class TanhHead(nn.Module):
    """SimCSE's training head, tanh(Wz + b): (V, B, D) or (B, D) to the same, in the dtype of its parameters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, z_VBD: Tensor) -> Tensor:
        return self.linear(z_VBD.to(self.linear.weight.dtype)).tanh()


def make_projector(settings: ProjectorSettings, width: int, reduction: Reduction) -> nn.Module:
    """The projector of a run for embeddings of `width` features: a Projector, or a TanhHead (kind "tanh")."""
    if settings.kind == "tanh":
        return TanhHead(width)
    return Projector(width, settings.blocks, settings.width, reduction)
