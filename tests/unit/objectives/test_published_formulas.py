"""Each objective equals its published formula, written out here in numpy from the papers, in float64."""

import numpy as np
import pytest
import torch
from torch import Tensor

from unsee_dist.distributed.reduce import Reduction
from unsee_dist.objectives import OBJECTIVES

B, D = 10, 6
Array = np.ndarray


def _views(seed: int) -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(B, D)) @ random.normal(size=(D, D)) + random.normal(size=D)
    return torch.from_numpy(x), torch.from_numpy(0.7 * x + random.normal(size=(B, D)))


def _barlow_twins(x: Array, y: Array, weight: float, gain: Array, shift: Array) -> float:
    u, v = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) * gain + shift for z in (x, y))
    loss = 0.0
    for i in range(D):
        for j in range(D):
            c = sum(u[b, i] * v[b, j] for b in range(B)) / B
            loss += (c - 1) ** 2 if i == j else weight * c**2
    return loss


def _vicreg(x: Array, y: Array, invariance: float, variance: float, covariance: float) -> float:
    def spread(z: Array) -> float:
        return sum(max(0.0, 1 - np.sqrt(z[:, i].var(ddof=1) + 1e-4)) for i in range(D)) / D

    def redundancy(z: Array) -> float:
        cov = np.cov(z.T)  # unbiased
        return sum(cov[i, j] ** 2 for i in range(D) for j in range(D) if i != j) / D

    agree = ((x - y) ** 2).sum() / (B * D)
    half = 0.5 * (spread(x) + spread(y))
    return invariance * agree + variance * half + covariance * (redundancy(x) + redundancy(y))


def _byol(x: Array, y: Array) -> float:
    return sum(2 - 2 * a @ b / np.sqrt(a @ a * (b @ b)) for a, b in zip(x, y, strict=True)) / B


def _simcse(x: Array, y: Array, temperature: float) -> float:
    loss = 0.0
    for b in range(B):
        scores = [x[b] @ y[n] / np.linalg.norm(x[b]) / np.linalg.norm(y[n]) / temperature for n in range(B)]
        loss += np.log(np.exp(scores).sum()) - scores[b]
    return loss / B


class _CorInfoMax:
    """The paper's recursion, as its authors' two-matrix loss has it."""

    def __init__(self, decay: float, eps: float, covariance: float, invariance: float) -> None:
        self.decay, self.eps, self.covariance, self.invariance = decay, eps, covariance, invariance
        self.mu, self.r = [np.zeros(D), np.zeros(D)], [np.eye(D), np.eye(D)]

    def __call__(self, x: Array, y: Array, normalise: bool) -> float:
        views = [z / np.sqrt((z**2).sum(1, keepdims=True)) if normalise else z for z in (x, y)]
        volume = 0.0
        for k, z in enumerate(views):
            self.mu[k] = self.decay * self.mu[k] + (1 - self.decay) * z.mean(0)
            about = sum(np.outer(row - self.mu[k], row - self.mu[k]) for row in z) / B
            self.r[k] = self.decay * self.r[k] + (1 - self.decay) * about
            volume += np.log(np.linalg.eigvalsh(self.r[k]) + self.eps).sum()
        return self.invariance * ((views[0] - views[1]) ** 2).mean() - self.covariance * volume / D


def _same(loss: Tensor, published: float) -> None:
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(published, rel=1e-11)


@pytest.mark.parametrize("weight", [0.0051, 0.5])
@pytest.mark.parametrize("affine", [False, True])
def test_barlow_twins(weight: float, affine: bool) -> None:
    x, y = _views(1)
    objective = OBJECTIVES["barlow_twins"](D, Reduction(), weight=weight, affine=affine).double()
    gain, shift = np.ones(D), np.zeros(D)
    if affine:  # one gain and one shift for both views
        gain, shift = np.linspace(0.5, 2, D), np.linspace(-1, 1, D)
        parameters = dict(objective.named_parameters())
        assert sorted(parameters) == ["standardise.bias", "standardise.weight"]
        parameters["standardise.weight"].data = torch.from_numpy(gain)
        parameters["standardise.bias"].data = torch.from_numpy(shift)
    _same(objective(x, y).loss, _barlow_twins(x.numpy(), y.numpy(), weight, gain, shift))


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (3.0, 5.0, 7.0)])
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_vicreg(weights: tuple[float, float, float], scale: float) -> None:
    x, y = (scale * z for z in _views(2))  # small views: the hinge is open, large ones: closed
    names = ("invariance", "variance", "covariance")
    objective = OBJECTIVES["vicreg"](D, Reduction(), **dict(zip(names, weights, strict=True)))
    _same(objective(x, y).loss, _vicreg(x.numpy(), y.numpy(), *weights))


def test_byol() -> None:
    x, y = _views(3)
    _same(OBJECTIVES["byol"](D, Reduction())(x, y).loss, _byol(x.numpy(), y.numpy()))


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_simcse(temperature: float) -> None:
    x, y = _views(4)
    objective = OBJECTIVES["simcse"](D, Reduction(), temperature=temperature)
    _same(objective(x, y).loss, _simcse(x.numpy(), y.numpy(), temperature))
    assert not objective.symmetric


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("settings", [(0.01, 1e-6, 0.2, 2000.0), (0.6, 1e-8, 1.0, 250.0)])
def test_corinfomax_over_several_steps(settings: tuple[float, float, float, float], normalise: bool) -> None:
    published = _CorInfoMax(*settings)
    names = ("decay", "eps", "covariance", "invariance")
    chosen = dict(zip(names, settings, strict=True))
    objective = OBJECTIVES["corinfomax"](D, Reduction(), normalise=normalise, **chosen)
    for step in range(4):
        first, second = _views(10 + step), _views(20 + step)
        for x, y in (first, second):  # twice a step, the state moving in between
            _same(objective(x, y).loss, published(x.numpy(), y.numpy(), normalise))
        objective.commit()
        for buffer, expected in zip(
            objective.buffers(),
            [published.mu[0], published.r[0], published.mu[1], published.r[1]],
            strict=True,
        ):
            np.testing.assert_allclose(buffer.numpy(), expected, rtol=1e-12, atol=1e-14)


def test_defaults_are_the_recipes() -> None:
    x, y = _views(5)
    explicit = {
        "barlow_twins": {"weight": 0.0051, "affine": False},
        "vicreg": {"invariance": 25.0, "variance": 25.0, "covariance": 1.0},
        "corinfomax": {
            "decay": 0.01,
            "eps": 1e-6,
            "covariance": 0.2,
            "invariance": 2000.0,
            "normalise": False,
        },
        "byol": {},
        "simcse": {"temperature": 0.05},
    }
    assert explicit.keys() == OBJECTIVES.keys()
    for name, settings in explicit.items():
        default, given = OBJECTIVES[name](D, Reduction()), OBJECTIVES[name](D, Reduction(), **settings)
        assert torch.equal(default(x, y).loss, given(x, y).loss)
