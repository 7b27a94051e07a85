"""The projector is the recipe's block, repeated, in the precision of its parameters."""

import pytest
import torch
from torch import nn

from unsee_dist.config import ConfigError, load
from unsee_dist.config.sections import ProjectorKind, ProjectorSettings
from unsee_dist.distributed.reduce import Reduction
from unsee_dist.model.projector import Projector, TanhHead, make_projector


def _batch(rows: int = 12, width: int = 6) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("blocks", [1, 3])
def test_equals_the_recipe_written_with_torch_layers(blocks: int) -> None:
    width, factor = 6, 10
    ours = Projector(width, blocks, factor, Reduction()).double()
    recipe = nn.Sequential()
    for _ in range(blocks):
        recipe.append(nn.Linear(width, factor * width))
        recipe.append(nn.BatchNorm1d(factor * width, track_running_stats=False))
        recipe.append(nn.ReLU())
        recipe.append(nn.Linear(factor * width, factor * width))
        recipe.append(nn.ReLU())
        recipe.append(nn.Linear(factor * width, width))
    recipe.double()
    with torch.no_grad():
        for theirs, mine in zip(recipe.parameters(), ours.parameters(), strict=True):
            theirs.copy_(mine)
    z = _batch().double()
    torch.testing.assert_close(ours(z), recipe(z), rtol=1e-12, atol=1e-12)


def test_paper_size() -> None:
    """4 blocks beside BERT-base are the released code's 283M parameters."""
    with torch.device("meta"):
        parameters = sum(p.numel() for p in Projector(768, 4, 10, Reduction()).parameters())
    assert round(parameters / 1e6) == 283


def test_no_blocks_are_the_identity() -> None:
    z = _batch()
    assert torch.equal(make_projector(ProjectorSettings(blocks=0), 6, Reduction())(z), z)


def test_tanh_head_is_linear_and_tanh() -> None:
    head, z = make_projector(ProjectorSettings(kind="tanh"), 6, Reduction()), _batch()
    assert isinstance(head, TanhHead)
    torch.testing.assert_close(head(z), torch.tanh(z @ head.linear.weight.T + head.linear.bias))


@pytest.mark.parametrize("kind", ["blocks", "tanh"])
def test_bf16_parameters_take_fp32_embeddings(kind: ProjectorKind) -> None:
    projector = make_projector(ProjectorSettings(kind=kind), 6, Reduction())
    exact = projector(_batch())
    rounded = projector.bfloat16()(_batch())
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).norm() < 0.03 * exact.norm()
    rounded.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in projector.parameters())


def test_unknown_kind_says_what_to_write() -> None:
    with pytest.raises(ConfigError, match=r"projector.kind = mlp — .* must be blocks or tanh"):
        load("base", ["projector.kind=mlp"])
