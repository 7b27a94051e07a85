"""What every objective obeys on one process: exact gradient, terms that add up, fp32 or better inside."""

import pytest
import torch
from torch import Tensor, nn

from unsee_dist.distributed.reduce import Reduction
from unsee_dist.objectives import OBJECTIVES, Stateful

B, D = 9, 5
EVERY = pytest.mark.parametrize("name", list(OBJECTIVES))


def _views(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(B, D, generator=generator, dtype=torch.float64)
    y = 0.5 * x + torch.randn(B, D, generator=generator, dtype=torch.float64)
    return 0.8 * x.to(dtype), 1.1 * y.to(dtype)


@EVERY
def test_gradient_of_both_views_is_exact(name: str) -> None:
    objective = OBJECTIVES[name](D, Reduction())
    x, y = (z.requires_grad_() for z in _views())

    def loss(x: Tensor, y: Tensor) -> Tensor:
        if isinstance(objective, Stateful):
            objective.discard()
        return objective(x, y).loss

    # Absolute errors of 1e-6 are below rounding for losses of several thousand (CorInfoMax).
    assert torch.autograd.gradcheck(loss, (x, y), atol=1e-5, rtol=1e-5)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_terms_add_up_to_the_loss_in_the_inputs_dtype(name: str, dtype: torch.dtype) -> None:
    x, y = _views(dtype)
    loss, terms = OBJECTIVES[name](D, Reduction()).to(dtype=dtype if name == "barlow_twins" else None)(
        x.requires_grad_(), y
    )
    assert loss.shape == ()
    assert loss.dtype == dtype
    assert not any(term.requires_grad for term in terms.values())
    torch.testing.assert_close(sum(terms.values()), loss.detach())


@EVERY
def test_low_precision_views_are_refused(name: str) -> None:
    x, y = _views(torch.bfloat16)
    with pytest.raises(AssertionError, match="bfloat16"):
        OBJECTIVES[name](D, Reduction())(x, y)


@EVERY
def test_a_nan_comes_out_as_a_nan_loss(name: str) -> None:
    """Not as an exception: the step skips it on all ranks."""
    x, y = _views(torch.float32)
    x[0, 0] = torch.nan
    x.requires_grad_()
    loss = OBJECTIVES[name](D, Reduction())(x, y).loss
    loss.backward()
    assert loss.isnan()


@EVERY
def test_fp32_on_embeddings_of_a_bf16_encoder_equals_float64(name: str) -> None:
    """A large common mean and a small spread, rounded to bf16 as an encoder would, then cast up."""
    generator = torch.Generator().manual_seed(3)
    x, y = (
        (16 + 0.5 * torch.randn(64, D, generator=generator)).bfloat16().float().requires_grad_()
        for _ in range(2)
    )
    grads = []
    for dtype in (torch.float32, torch.float64):
        loss = OBJECTIVES[name](D, Reduction())(x.to(dtype), y.to(dtype)).loss
        grads.append(torch.cat([g.double() for g in torch.autograd.grad(loss, (x, y))]))
    assert (grads[0] - grads[1]).norm() < 2e-4 * grads[1].norm()


def test_vicreg_variance_survives_a_large_mean() -> None:
    """Mean 1000, deviation 0.3: two passes keep 4 digits, Σz² − Nμ² in fp32 (the control) keeps none."""
    z = 1000 + 0.3 * torch.randn(64, D, generator=torch.Generator().manual_seed(4))
    objective = OBJECTIVES["vicreg"](D, Reduction(), invariance=0.0, covariance=0.0, variance=1.0)
    exact = objective(z.double(), z.double()).loss.item()
    one_pass = (z.square().sum(0) - len(z) * z.mean(0).square()) / (len(z) - 1)
    control = (1 - (one_pass + 1e-4).sqrt()).relu().mean().item()
    assert objective(z, z).loss.item() == pytest.approx(exact, rel=1e-4)
    assert control != pytest.approx(exact, rel=1e-2)


def test_vicreg_of_one_sentence_is_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"train\.batch = 1 has no variance"):
        OBJECTIVES["vicreg"](D, Reduction())(torch.ones(1, D), torch.ones(1, D))


def _state(objective: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in objective.buffers()]


def test_only_corinfomax_is_stateful() -> None:
    built = {name: build(D, Reduction()) for name, build in OBJECTIVES.items()}
    assert [name for name, objective in built.items() if isinstance(objective, Stateful)] == ["corinfomax"]
    assert [name for name, objective in built.items() if _state(objective)] == ["corinfomax"]


def test_corinfomax_state_moves_on_commit_only() -> None:
    objective = OBJECTIVES["corinfomax"](D, Reduction(), decay=0.5)
    start = _state(objective)
    assert all(buffer.dtype == torch.float64 for buffer in start)
    first, second = _views(seed=1), _views(seed=2)

    losses = [objective(*first).loss, objective(*second).loss]
    assert all(map(torch.equal, start, _state(objective)))
    objective.discard()
    again = [objective(*first).loss, objective(*second).loss]
    assert losses == again, "a discarded step is a step left out, bit for bit"
    assert losses[1] != OBJECTIVES["corinfomax"](D, Reduction(), decay=0.5)(*second).loss

    addresses = [buffer.data_ptr() for buffer in objective.buffers()]
    objective.commit()
    moved = _state(objective)
    assert not any(map(torch.equal, start, moved))
    assert addresses == [buffer.data_ptr() for buffer in objective.buffers()], "in place"
    objective.commit()
    objective.discard()
    assert all(map(torch.equal, moved, _state(objective)))


def test_corinfomax_continues_from_its_state_dict() -> None:
    objective, resumed = (OBJECTIVES["corinfomax"](D, Reduction(), decay=0.5) for _ in range(2))
    objective(*_views(seed=1))
    objective.commit()
    assert sorted(objective.state_dict()) == [
        "online_covariance",
        "online_mean",
        "target_covariance",
        "target_mean",
    ]
    resumed.load_state_dict(objective.state_dict())
    assert torch.equal(resumed(*_views(seed=2)).loss, objective(*_views(seed=2)).loss)
