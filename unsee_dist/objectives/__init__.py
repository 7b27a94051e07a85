"""Embeddings to loss: five objectives, each the exact loss of the global batch on any number of ranks.

    >>> import torch
    >>> from unsee_dist.objectives import OBJECTIVES
    >>> from unsee_dist.distributed.reduce import Reduction
    >>> objective = OBJECTIVES["vicreg"](16, Reduction(), covariance=2.0)
    >>> online, target = torch.randn(8, 16, requires_grad=True), torch.randn(8, 16)
    >>> outcome = objective(online, target)
    >>> outcome.loss.backward()
    >>> sorted(outcome.terms)
    ['covariance', 'invariance', 'variance']

Each is an `nn.Module` built as `OBJECTIVES[name](width, reduction, **settings)` and called as
`objective(online, target) -> Outcome`, on a pair of views (B, D) or on V pairs (V, B, D), whose losses are summed. `symmetric`
says whether a step sums both directions.
"""

from unsee_dist.objectives.barlow_twins import BarlowTwins
from unsee_dist.objectives.byol import BYOL
from unsee_dist.objectives.corinfomax import CorInfoMax
from unsee_dist.objectives.outcome import Objective, Outcome, Stateful
from unsee_dist.objectives.simcse import SimCSE
from unsee_dist.objectives.vicreg import VICReg

OBJECTIVES: dict[str, type[Objective]] = {
    "barlow_twins": BarlowTwins,
    "vicreg": VICReg,
    "corinfomax": CorInfoMax,
    "byol": BYOL,
    "simcse": SimCSE,
}

__all__ = ["OBJECTIVES", "Objective", "Outcome", "Stateful"]
