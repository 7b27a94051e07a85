"""One loss: on 1 to 4 ranks, each with its own sentences, loss and gradient are those of the whole batch.

Between ranks the engine's convention is applied: parameter gradients are averaged. A trained network in front
of both views makes the gradients go through everything, and descends between the steps, so that some wrong ways
which are right on the first step show. The controls are the ways others went; each must fail this comparison.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pytest
import torch
import torch.distributed as dist
from processes import run
from torch import Tensor, nn

from unsee_dist.distributed.batchnorm import SyncBatchNorm
from unsee_dist.distributed.reduce import Reduction
from unsee_dist.model.projector import Projector
from unsee_dist.objectives import OBJECTIVES, Stateful

N, WIDTH, STEPS = 24, 6, 4
RANKS = (1, 2, 3, 4)
EXACT = 1e-9


class Plain(Reduction):
    """`dist.all_reduce` and `dist.all_gather` in a loss: right values, of which autograd sees this rank's only."""

    def sum(self, x: Tensor) -> Tensor:
        return x + (super().sum(x) - x).detach()

    def sum_gradient(self, gradient: Tensor) -> Tensor:
        return gradient

    def shared_gradient(self, gradient: Tensor) -> Tensor:
        return gradient

    def gather(self, rows_BD: Tensor) -> Tensor:
        rows = list(super().gather(rows_BD).detach().chunk(self.size))
        rows[self.rank] = rows_BD
        return torch.cat(rows)


class TimesRanks(Reduction):
    """The gradient of the true sum, multiplied by the number of ranks once more."""

    def shared_gradient(self, gradient: Tensor) -> Tensor:
        return self.size * super().shared_gradient(gradient)

    def gather(self, rows_BD: Tensor) -> Tensor:
        y = super().gather(rows_BD)
        return self.size * y - ((self.size - 1) * y).detach()


class PerRank(Reduction):
    """No communication: each rank's own sums and rows stand for those of all."""

    def sum(self, x: Tensor) -> Tensor:
        return self.size * x

    def gather(self, rows_BD: Tensor) -> Tensor:
        return rows_BD.repeat(self.size, 1)


@dataclass(frozen=True)
class Case:
    """An objective behind a linear layer, or behind a projector block; and how each of them looks beyond the rank."""

    objective: str
    settings: dict[str, object] = field(default_factory=dict)
    projector: bool = False
    in_objective: Callable[..., Reduction] = Reduction
    in_projector: Callable[..., Reduction] = Reduction

    def build(self, rank: int, size: int) -> nn.ModuleDict:
        """The same weights for everyone who asks."""
        torch.manual_seed(7)
        project: nn.Module = nn.Linear(WIDTH, WIDTH)
        if self.projector:
            project = Projector(WIDTH, 2, 3, self.in_projector(rank, size))
        objective = OBJECTIVES[self.objective](WIDTH, self.in_objective(rank, size), **self.settings)
        encode = nn.Linear(WIDTH, WIDTH)
        return nn.ModuleDict({"encode": encode, "project": project, "objective": objective}).double()


def _global_views(step: int) -> list[Tensor]:
    """Four views of N sentences; every sentence, and so every rank's part, has another mean and spread."""
    generator = torch.Generator().manual_seed(100 + step)
    sentence = torch.randn(N, WIDTH, generator=generator, dtype=torch.float64).cumsum(0)
    noise = torch.randn(4, N, WIDTH, generator=generator, dtype=torch.float64)
    return list(sentence + noise * torch.linspace(0.2, 2, N, dtype=torch.float64)[:, None])


def _loss(model: nn.ModuleDict, views: Iterable[Tensor]) -> Tensor:
    """The step's loss. Gradient through the targets too: an objective must be exact in both arguments."""
    online_1, online_2, target_1, target_2 = (model["encode"](view) for view in views)
    project, objective = model["project"], model["objective"]
    count = 2 if objective.symmetric else 1
    projected = project(torch.stack([online_1, online_2][:count]))
    return objective(projected, torch.stack([target_2, target_1][:count])).loss


def _train(case: Case, rank: int, size: int) -> tuple[list[float], list[Tensor], list[Tensor]]:
    """Losses and flat gradients of STEPS steps, averaged over ranks as the engine does, and the final buffers."""
    model, losses, gradients = case.build(rank, size), [], []
    for step in range(STEPS):
        loss = _loss(model, (view.chunk(size)[rank] for view in _global_views(step)))
        model.zero_grad()
        loss.backward()
        mean_loss = loss.detach().clone()
        gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        if size > 1:
            for each in (mean_loss, gradient):
                dist.all_reduce(each)
                each /= size
        losses.append(mean_loss.item())
        gradients.append(gradient)
        _descend(model, 0.05 * gradient / gradient.norm())
        if isinstance(model["objective"], Stateful):
            model["objective"].commit()
    return losses, gradients, list(model["objective"].buffers())


@torch.no_grad()
def _descend(model: nn.Module, change: Tensor) -> None:
    parameters = list(model.parameters())
    for parameter, part in zip(parameters, change.split([p.numel() for p in parameters]), strict=True):
        parameter -= part.view_as(parameter)


def _compare(rank: int, size: int, cases: list[Case]) -> list[dict[str, float]]:
    """By case: the largest error over the steps of loss and gradient (relative), and of the final buffers."""
    errors = []
    for case in cases:
        losses, gradients, buffers = _train(case, rank, size)
        whole_losses, whole_gradients, whole_buffers = _train(case, 0, 1)
        errors.append(
            {
                "loss": max(abs(a / b - 1) for a, b in zip(losses, whole_losses, strict=True)),
                "gradient": _largest(
                    (a - b) / b.norm() for a, b in zip(gradients, whole_gradients, strict=True)
                ),
                "buffers": _largest(a - b for a, b in zip(buffers, whole_buffers, strict=True)),
                "buffers between ranks": _largest(buffer - _of_rank_0(buffer) for buffer in buffers),
            }
        )
    return errors


def _largest(differences: Iterable[Tensor]) -> float:
    return max((difference.norm().item() for difference in differences), default=0.0)


def _of_rank_0(buffer: Tensor) -> Tensor:
    theirs = buffer.clone()
    dist.broadcast(theirs, 0)
    return theirs


# At the default weights 99.99% of CorInfoMax's gradient is its local term, which would hide the rest.
VOLUME = {"decay": 0.7, "covariance": 1.0, "invariance": 1.0}
SETTINGS: dict[str, tuple[str, dict[str, object]]] = {
    "barlow_twins": ("barlow_twins", {}),
    "barlow_twins, affine": ("barlow_twins", {"affine": True}),
    "vicreg": ("vicreg", {}),
    "corinfomax": ("corinfomax", {}),
    "corinfomax, long memory": ("corinfomax", VOLUME),
    "corinfomax, long memory, normalised": ("corinfomax", VOLUME | {"normalise": True}),
    "byol": ("byol", {}),
    "simcse": ("simcse", {}),
}
RIGHT = {
    f"{title}{' behind a projector' if projector else ''}": Case(name, settings, projector)
    for title, (name, settings) in SETTINGS.items()
    for projector in (False, True)
}
# One setting each; BYOL's loss has nothing to get wrong.
REDUCING = {name: VOLUME if name == "corinfomax" else {} for name in OBJECTIVES if name != "byol"}
WRONG = {
    **{f"plain all_reduce in {n}": Case(n, s, in_objective=Plain) for n, s in REDUCING.items()},
    **{f"gradient times ranks in {n}": Case(n, s, in_objective=TimesRanks) for n, s in REDUCING.items()},
    **{f"per-rank statistics in {n}": Case(n, s, in_objective=PerRank) for n, s in REDUCING.items()},
    **{f"per-rank BatchNorm before {n}": Case(n, {}, True, in_projector=PerRank) for n in OBJECTIVES},
    **{f"plain BatchNorm before {n}": Case(n, {}, True, in_projector=Plain) for n in OBJECTIVES},
}


def _errors(cases: dict[str, Case], ranks: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Title and errors of each case on each rank, all on one process group."""
    for by_case in run(_compare, ranks, list(cases.values())):
        yield from zip(cases, by_case, strict=True)


@pytest.mark.parametrize("ranks", RANKS)
def test_split_equals_whole(ranks: int) -> None:
    found = list(_errors(RIGHT, ranks))
    assert not [(title, errors) for title, errors in found if not max(errors.values()) < EXACT]
    assert all(errors["buffers between ranks"] == 0 for _, errors in found)


@pytest.mark.parametrize("ranks", RANKS[1:])
def test_the_wrong_ways_fail_the_same_comparison(ranks: int) -> None:
    passed = [(title, errors) for title, errors in _errors(WRONG, ranks) if not errors["gradient"] > 1e-3]
    assert not passed


def _reductions(rank: int, size: int) -> None:
    reduction = Reduction(rank, size)
    parts = torch.randn(size, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # What each rank does with the result, so the backward sums differ from any one rank's.
    weights = torch.randn(size, 3 * size, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    x = parts[rank].T.contiguous().T.requires_grad_()  # not contiguous, as a transposed covariance would be
    total = reduction.sum(x)
    torch.testing.assert_close(total, parts.sum(0))
    (total * weights[rank, :3]).sum().backward()
    torch.testing.assert_close(x.grad, weights[:, :3].sum(0))
    assert torch.equal(x.detach(), parts[rank]), "the input is left alone"

    y = parts[rank].T.contiguous().T.requires_grad_()
    rows = reduction.gather(y)
    assert torch.equal(rows, parts.flatten(0, 1))
    (rows * weights[rank]).sum().backward()
    torch.testing.assert_close(y.grad, weights.sum(0)[3 * rank : 3 * rank + 3])


def _uneven_batchnorm(rank: int, size: int) -> None:
    """Parts of 1, 2, 3... rows: the count is counted, not assumed."""
    z = torch.randn(
        size * (size + 1) // 2, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    z = z.cumsum(0)
    part = z.split(list(range(1, size + 1)))[rank].clone().requires_grad_()
    whole = z.clone().requires_grad_()
    direction = torch.randn(z.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mine = direction.split(list(range(1, size + 1)))[rank]

    out = SyncBatchNorm(4, Reduction(rank, size), affine=False)(part)
    expected = SyncBatchNorm(4, Reduction(), affine=False)(whole)
    torch.testing.assert_close(out, expected.split(list(range(1, size + 1)))[rank], rtol=EXACT, atol=EXACT)
    (out * mine).sum().backward()
    (expected * direction).sum().backward()
    grad = whole.grad.split(list(range(1, size + 1)))[rank]
    torch.testing.assert_close(part.grad, grad, rtol=EXACT, atol=EXACT)


def _batchnorm_far_from_zero(rank: int, size: int) -> None:
    """Mean 1000, deviation 0.1, in fp32: what is added up over ranks must not cancel."""
    z = 1000 + 0.1 * torch.randn(16 * size, 8, generator=torch.Generator().manual_seed(4))
    exact = (z.double() - z.double().mean(0)) / (z.double().var(0, unbiased=False) + 1e-5).sqrt()
    part = z.chunk(size)[rank]
    out = SyncBatchNorm(8, Reduction(rank, size), affine=False)(part)
    assert (out - exact.chunk(size)[rank]).abs().max() < 3e-3
    sums = Reduction(rank, size).sum(torch.stack([part.sum(0), part.square().sum(0)])) / len(z)
    one_pass = (part - sums[0]) / (sums[1] - sums[0].square() + 1e-5).sqrt()
    assert not (one_pass - exact.chunk(size)[rank]).abs().max() < 1e-1, "the control"


def _primitives(rank: int, size: int) -> None:
    _reductions(rank, size)
    _uneven_batchnorm(rank, size)
    _batchnorm_far_from_zero(rank, size)


@pytest.mark.parametrize("ranks", RANKS[1:])
def test_reductions_and_batchnorm_of_uneven_parts(ranks: int) -> None:
    run(_primitives, ranks)
