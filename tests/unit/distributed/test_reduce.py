"""One process: a Reduction is the identity, and a copied module keeps its process group."""

import copy

import torch

from unsee_dist.distributed.reduce import Reduction


def test_alone_every_reduction_is_the_identity() -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    alone = Reduction()
    for reduced in (alone.sum(x), alone.gather(x), alone.sum_gradient(x), alone.shared_gradient(x)):
        assert torch.equal(reduced, x)


def test_a_copy_talks_over_the_same_group() -> None:
    group = object()
    reduction = Reduction(1, 2, group)
    assert copy.deepcopy({"reduction": reduction})["reduction"].group is group
