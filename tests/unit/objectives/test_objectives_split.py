"""Two ranks as two threads of one process: the loss of the global batch, its gradient, and where tensors are made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from unsee_dist.distributed.reduce import Reduction
from unsee_dist.objectives import OBJECTIVES, Stateful
from unsee_dist.objectives.moments import cross, pairs, scatters

B, D, RANKS = 8, 5, 2
EVERY = pytest.mark.parametrize("name", list(OBJECTIVES))
# CorInfoMax at its own settings is all local error: its covariance would not be seen.
SETTINGS = {"corinfomax": {"invariance": 1.0, "covariance": 1.0, "decay": 0.3}}


class Table:
    """Where the threads lay down their tensors for each other. Autograd sees through it."""

    def __init__(self) -> None:
        self.places: list[Tensor] = [torch.empty(0)] * RANKS
        self.all_here = threading.Barrier(RANKS, timeout=20)

    def exchange(self, rank: int, x: Tensor) -> list[Tensor]:
        self.places[rank] = x
        self.all_here.wait()
        seen = list(self.places)
        self.all_here.wait()
        return seen


@dataclass(frozen=True)
class Threads(Reduction):
    """The same arithmetic as over a process group."""

    table: Table | None = None

    def sum(self, x: Tensor) -> Tensor:
        assert self.table is not None
        return torch.stack(self.table.exchange(self.rank, x)).sum(0)

    def gather(self, rows_BD: Tensor) -> Tensor:
        assert self.table is not None
        return torch.cat(self.table.exchange(self.rank, rows_BD))


def on_ranks(work: Callable[[Reduction], Tensor]) -> list[Tensor]:
    table = Table()

    def run(rank: int) -> Tensor:
        try:
            return work(Threads(rank, RANKS, None, table))
        except BaseException:
            table.all_here.abort()  # nobody waits for a rank that has failed
            raise

    with ThreadPoolExecutor(RANKS) as pool:
        return list(pool.map(run, range(RANKS)))


def views(sentences: int = B) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(sentences, D, generator=generator, dtype=torch.float64)
    y = 0.4 * x + 0.7 * torch.randn(sentences, D, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), y.requires_grad_()


@EVERY
def test_two_ranks_have_the_loss_and_the_gradient_of_one(name: str) -> None:
    x, y = views()
    whole = OBJECTIVES[name](D, Reduction(), **SETTINGS.get(name, {}))(x, y).loss
    gradient = torch.autograd.grad(whole, (x, y))

    def part(reduction: Reduction) -> Tensor:
        objective = OBJECTIVES[name](D, reduction, **SETTINGS.get(name, {}))
        return objective(x.chunk(RANKS)[reduction.rank], y.chunk(RANKS)[reduction.rank]).loss

    split = torch.stack(on_ranks(part)).mean()
    torch.testing.assert_close(split, whole, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(torch.autograd.grad(split, (x, y)), gradient, rtol=1e-10, atol=1e-10)


@EVERY
def test_pairs_at_once_are_pairs_one_after_the_other(name: str) -> None:
    """Loss, gradient and state: CorInfoMax' second pair meets the state that the first one leaves."""
    x, y = (torch.stack([z, 0.5 + z.flip(0) ** 2]) for z in views())
    at_once, by_pair = (OBJECTIVES[name](D, Reduction(), **SETTINGS.get(name, {})) for _ in range(2))
    whole = at_once(x, y)
    outcomes = [by_pair(*pair) for pair in zip(x, y, strict=True)]
    apart = torch.stack([each.loss for each in outcomes]).sum()
    torch.testing.assert_close(whole.loss, apart, rtol=1e-12, atol=1e-12)
    for term, value in whole.terms.items():
        torch.testing.assert_close(value, sum(each.terms[term] for each in outcomes), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(whole.loss, (x, y)), torch.autograd.grad(apart, (x, y)), rtol=1e-10, atol=1e-12
    )
    for objective in (at_once, by_pair):
        if isinstance(objective, Stateful):
            objective.commit()
    for mine, other in zip(at_once.buffers(), by_pair.buffers(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_ranks_that_do_not_talk_have_another_loss() -> None:
    """Negative control: what the law above would not see in an objective without a sum over ranks."""
    x, y = views()
    objective = OBJECTIVES["vicreg"](D, Reduction())
    alone = [objective(*half).loss.item() for half in zip(x.chunk(RANKS), y.chunk(RANKS), strict=True)]
    assert sum(alone) / RANKS != pytest.approx(objective(x, y).loss.item(), rel=1e-3)


def test_one_sentence_on_each_of_two_ranks_has_a_variance() -> None:
    x, y = views(2)
    whole = OBJECTIVES["vicreg"](D, Reduction())(x, y).loss
    covariance = [np.cov(z.detach().numpy().T) for z in (x, y)]
    spread = sum(np.maximum(0, 1 - np.sqrt(c.diagonal() + 1e-4)).mean() for c in covariance)
    redundancy = sum((c**2).sum() - (c.diagonal() ** 2).sum() for c in covariance) / D
    agree = (x - y).square().mean().item()
    assert whole.item() == pytest.approx(25 * agree + 12.5 * spread + redundancy, rel=1e-11)

    def part(reduction: Reduction) -> Tensor:
        return OBJECTIVES["vicreg"](D, reduction)(*(z[[reduction.rank]] for z in (x, y))).loss

    assert torch.stack(on_ranks(part)).mean().item() == pytest.approx(whole.item(), rel=1e-11)


@pytest.mark.parametrize("name", ["vicreg", "barlow_twins", "corinfomax"])
def test_a_large_mean_over_ranks_in_fp32_is_that_of_float64(name: str) -> None:
    """Mean 1000, deviation 0.3: what ranks add up must not cancel. Σz² − Nμ² in fp32 (the control) keeps no digit."""
    generator = torch.Generator().manual_seed(5)
    x, y = (1000 + 0.3 * torch.randn(64, D, generator=generator) for _ in range(2))
    settings = {"corinfomax": {"invariance": 0.0, "covariance": 1.0}, "vicreg": {"invariance": 0.0}}
    exact = OBJECTIVES[name](D, Reduction(), **settings.get(name, {}))(x.double(), y.double()).loss

    def part(reduction: Reduction) -> Tensor:
        halves = (z.chunk(RANKS)[reduction.rank] for z in (x, y))
        return OBJECTIVES[name](D, reduction, **settings.get(name, {}))(*halves).loss

    assert torch.stack(on_ranks(part)).mean().item() == pytest.approx(exact.item(), rel=2e-4)
    one_pass = (x.square().sum(0) - len(x) * x.mean(0).square()) / len(x)
    assert not torch.allclose(one_pass, x.double().var(0, unbiased=False).float(), rtol=1e-2)


@pytest.mark.parametrize("name", ["vicreg", "barlow_twins", "corinfomax"])
def test_features_of_hardly_any_variance_have_the_loss_of_one_rank(name: str) -> None:
    """Squares about the mean add up to far less than 1: no bound of theirs may be met, but 0."""
    x, y = (1e-3 * view.detach() for view in views())
    whole = OBJECTIVES[name](D, Reduction(), **SETTINGS.get(name, {}))(x, y).loss

    def part(reduction: Reduction) -> Tensor:
        halves = (view.chunk(RANKS)[reduction.rank] for view in (x, y))
        return OBJECTIVES[name](D, reduction, **SETTINGS.get(name, {}))(*halves).loss

    assert torch.stack(on_ranks(part)).mean().item() == pytest.approx(whole.item(), rel=1e-9)


def test_moments_of_several_ranks_have_the_dtype_of_the_views() -> None:
    """They are added in float64, and an objective computes in the precision of what it is given."""
    x, y = (view.detach().float()[None] for view in views())

    def part(reduction: Reduction) -> Tensor:
        halves = [view.chunk(RANKS, dim=1)[reduction.rank] for view in (x, y)]
        moments = [each for pair in scatters(*halves, reduction) for each in pair]
        assert {each.dtype for each in (*moments, *cross(*halves, reduction))} == {torch.float32}
        return torch.stack([each.sum() for each in moments])

    assert torch.equal(*on_ranks(part))


@EVERY
def test_nothing_is_made_on_another_device_than_the_views(name: str) -> None:
    """torch's default device is one whose tensors hold nothing here: whatever is made there spoils the loss."""
    objective = OBJECTIVES[name](D, Reduction())
    x, y = (z.detach() for z in views())
    expected = objective(x, y).loss
    if isinstance(objective, Stateful):
        objective.discard()
    with torch.device("meta"):
        loss = objective(x, y).loss
    assert loss.device == x.device
    assert torch.equal(loss, expected)


def test_barlow_twins_trains_its_standardisation_only_when_asked_to() -> None:
    kinds = {affine: OBJECTIVES["barlow_twins"](D, Reduction(), affine=affine) for affine in (False, True)}
    assert {affine: len(list(kind.parameters())) for affine, kind in kinds.items()} == {False: 0, True: 2}
    plain, affine = (kind.double()(*views()).loss for kind in kinds.values())  # which begins as none
    assert affine.item() == plain.item()


def test_the_standardisation_of_barlow_twins_may_be_stored_in_bf16() -> None:
    """It is rounded where it is stored; what is computed of it is not."""
    x, y = (view.detach().float() for view in views())
    losses = []
    for stored in (torch.bfloat16, torch.float32):
        objective = OBJECTIVES["barlow_twins"](D, Reduction(), affine=True)
        for parameter in objective.parameters():
            parameter.data = torch.linspace(0.3, 1.7, D).bfloat16().to(stored)
        losses.append(objective(x, y).loss)
    assert losses[0].item() == losses[1].item()


def test_views_in_two_good_precisions_may_be_mixed() -> None:
    x, y = views()
    for mixed in (pairs(x.float(), y), pairs(x, y.float())):
        assert [(view.dtype, view.shape) for view in mixed] == [(torch.float64, (1, B, D))] * 2
    with pytest.raises(AssertionError):
        pairs(x.half(), y)
    with pytest.raises(AssertionError):
        pairs(x[1:], y)


def test_vicreg_says_how_many_sentences_it_needs() -> None:
    with pytest.raises(
        ValueError, match=r"^train\.batch = 1 has no variance, which VICReg needs. Use at least 2\.$"
    ):
        OBJECTIVES["vicreg"](D, Reduction())(torch.ones(1, D), torch.ones(1, D))


def test_the_volume_of_a_point_is_that_of_epsilon_in_float64() -> None:
    """All sentences at 0 and no memory: R = 0, log det = D log ε. In fp32 ε = 1e-6 would be off in its eighth digit."""
    objective = OBJECTIVES["corinfomax"](D, Reduction(), decay=0.0, covariance=1.0)
    zero = torch.zeros(B, D, dtype=torch.float64)
    assert objective(zero, zero).loss.item() == pytest.approx(-2 * np.log(1e-6), rel=1e-12)


def test_corinfomax_commits_nothing_before_its_first_step_and_after_a_skipped_one() -> None:
    objective = OBJECTIVES["corinfomax"](D, Reduction(), decay=0.5)
    assert isinstance(objective, Stateful)
    start = [buffer.clone() for buffer in objective.buffers()]
    objective.commit()
    objective(*views())
    objective.discard()
    objective.commit()
    assert all(map(torch.equal, start, objective.buffers()))
