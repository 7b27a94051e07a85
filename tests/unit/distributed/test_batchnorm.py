"""SyncBatchNorm alone: torch's BatchNorm1d on batch statistics, its gradient, and precision inside."""

import pytest
import torch
from torch import nn

from unsee_dist.distributed.batchnorm import SyncBatchNorm
from unsee_dist.distributed.reduce import Reduction


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("affine", [True, False])
def test_equals_batchnorm1d_in_training(affine: bool) -> None:
    ours = SyncBatchNorm(6, Reduction(), affine=affine).double()
    theirs = nn.BatchNorm1d(6, affine=affine).double()
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.copy_(other.copy_(torch.randn(6, generator=_generator())))
    z = (3 + 2 * torch.randn(9, 6, generator=_generator(1), dtype=torch.float64)).requires_grad_()
    direction = torch.randn(9, 6, generator=_generator(2), dtype=torch.float64)
    inputs = [z, *ours.parameters()], [z, *theirs.parameters()]
    torch.testing.assert_close(ours(z), theirs(z), rtol=1e-12, atol=1e-12)
    for mine, other in zip(
        torch.autograd.grad((ours(z) * direction).sum(), inputs[0]),
        torch.autograd.grad((theirs(z) * direction).sum(), inputs[1]),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)


def test_gradient_is_exact() -> None:
    z = torch.randn(5, 3, generator=_generator(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SyncBatchNorm(3, Reduction()).double(), (z,))


def test_views_at_once_are_views_one_by_one() -> None:
    norm = SyncBatchNorm(3, Reduction()).double()
    z = torch.randn(2, 5, 3, generator=_generator(), dtype=torch.float64).cumsum(0).requires_grad_()
    direction = torch.randn(2, 5, 3, generator=_generator(1), dtype=torch.float64)
    inputs = [z, *norm.parameters()]
    together = torch.autograd.grad((norm(z) * direction).sum(), inputs)
    one_by_one = torch.stack([norm(view) for view in z])
    torch.testing.assert_close(norm(z), one_by_one, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(norm(z.flatten(0, 1)).view_as(z), one_by_one, rtol=0.1), (
        "one statistic for both"
    )
    apart = torch.autograd.grad((one_by_one * direction).sum(), inputs)
    for mine, other in zip(together, apart, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(norm, (z,))


def test_a_constant_feature_is_zero_whatever_its_value() -> None:
    """What rounding leaves of a variance of 0 may be below -ε, whose root is NaN (torch's BatchNorm1d says 3,200 here)."""
    z = torch.full((7, 2), 1e6 / 3) * torch.tensor([1.0, -1e3])
    assert torch.equal(SyncBatchNorm(2, Reduction())(z), torch.zeros(7, 2))


def test_evaluation_uses_batch_statistics_too() -> None:
    norm, z = SyncBatchNorm(4, Reduction()), torch.randn(7, 4, generator=_generator())
    assert torch.equal(norm(z), norm.eval()(z))


def test_a_large_mean_does_not_eat_the_variance() -> None:
    """Mean 1000, deviation 0.1: Σz²/N − μ² in fp32 is off by more than the variance itself (the control)."""
    z = 1000 + 0.1 * torch.randn(64, 32, generator=_generator())
    exact = (z.double() - z.double().mean(0)) / (z.double().var(0, unbiased=False) + 1e-5).sqrt()
    one_pass = (z - z.mean(0)) / (z.square().mean(0) - z.mean(0).square() + 1e-5).sqrt()
    # fp32 numbers near 1000 lie 6e-5 apart, which is 6e-4 deviations: a few of those for the mean.
    assert (SyncBatchNorm(32, Reduction(), affine=False)(z) - exact).abs().max() < 3e-3
    assert not (one_pass - exact).abs().max() < 1e-1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_rounded_once_at_the_end(dtype: torch.dtype) -> None:
    norm = SyncBatchNorm(8, Reduction()).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(8, generator=_generator()))
        norm.bias.copy_(torch.randn(8, generator=_generator(1)))
    z = (50 + torch.randn(32, 8, generator=_generator(2))).to(dtype)
    exact = SyncBatchNorm(8, Reduction()).double()
    exact.load_state_dict(norm.state_dict())
    out = norm(z)
    assert out.dtype == dtype
    # Half a unit in the last place of the rounding, and fp32's noise.
    error = (out.double() - exact(z.double())).abs()
    assert (error <= 0.51 * torch.finfo(dtype).eps * exact(z.double()).abs() + 1e-5).all()
