"""Geometry from summed moments equals the same numbers from all embeddings, written out with an SVD."""

from functools import reduce

import numpy as np
import pytest

from unsee_dist.metrics.geometry import alignment, geometry, moments, uniformity


def _cloud(seed, count=300, width=24):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, width)) * np.geomspace(1, 0.01, width) + rng.normal(size=width)).astype(
        np.float32
    )


def _written_out(z):
    u = z.astype(np.float64)
    u = u / np.sqrt((u**2).sum(1, keepdims=True))
    singular = np.linalg.svd(u - u.mean(0), compute_uv=False)
    p = singular / singular.sum()
    cosine = u @ u.T
    off = np.corrcoef(u.T)[~np.eye(u.shape[1], dtype=bool)]
    return {
        "std": np.std(u, axis=0).mean() * np.sqrt(u.shape[1]),
        "std_min": np.std(u, axis=0).min() * np.sqrt(u.shape[1]),
        "correlation": np.sqrt((off**2).mean()),
        "effective_rank": np.exp(-(p * np.log(p)).sum()),
        "mean_cosine": cosine[~np.eye(len(u), dtype=bool)].mean(),
    } | {f"spectrum/{k}": singular[k - 1] ** 2 / (singular**2).sum() for k in (1, 2, 4, 8, 16)}


@pytest.mark.parametrize("cuts", [[], [1], [150], [7, 8, 299], list(range(1, 300))])
def test_moments_of_any_split_give_the_whole_clouds_geometry(cuts):
    z = _cloud(0)
    of = reduce(lambda a, b: a + b, [moments(part) for part in np.split(z, cuts)])
    assert geometry(of) == {name: pytest.approx(value, rel=1e-9) for name, value in _written_out(z).items()}


def test_an_isotropic_cloud_has_std_1_full_rank_and_cosine_0():
    found = geometry(moments(np.random.default_rng(1).normal(size=(20000, 32))))
    assert found["std"] == pytest.approx(1, abs=0.01)
    assert found["effective_rank"] == pytest.approx(32, rel=0.01)
    assert found["mean_cosine"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("noise", [0, 1e-8, 1e-7])
def test_one_point_has_std_and_rank_0_though_its_rounding_errors_have_full_rank(noise):
    rng = np.random.default_rng(2)
    z = (rng.normal(size=64) + noise * rng.normal(size=(500, 64))).astype(np.float32)
    found = geometry(moments(z))
    assert found["std"] < 1e-6
    assert found["effective_rank"] == 0
    assert found["mean_cosine"] == pytest.approx(1)


def test_a_cloud_on_k_axes_has_rank_k():
    rng = np.random.default_rng(3)
    basis, _ = np.linalg.qr(rng.normal(size=(64, 64)))
    on_axes = np.concatenate([basis[:5], -basis[:5]] * 40)
    assert geometry(moments(on_axes))["effective_rank"] == pytest.approx(5, rel=1e-6)


def test_not_finite_is_nan_and_one_embedding_has_no_geometry():
    z = _cloud(4)
    z[3, 3] = np.nan
    assert all(np.isnan(value) for value in geometry(moments(z)).values())
    with pytest.raises(ValueError, match="at least 2"):
        geometry(moments(z[:1]))


def test_alignment_and_uniformity_are_wang_and_isolas_written_out():
    x, y = _cloud(6, 40).astype(float), _cloud(7, 40).astype(float)
    u, v = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    assert alignment(x, y) == pytest.approx(
        np.mean([np.sum((a - b) ** 2) for a, b in zip(u, v, strict=True)])
    )
    every = [np.exp(-2 * np.sum((u[i] - u[j]) ** 2)) for i in range(40) for j in range(40) if i != j]
    assert uniformity(x) == pytest.approx(np.log(np.mean(every)))
    assert alignment(x, 3 * x) == pytest.approx(0)
    assert uniformity(np.ones((9, 4))) == pytest.approx(0)
