"""What is shown of gold pairs is what their embeddings are, with the interval of the difference."""

from __future__ import annotations

import numpy as np
import pytest

from unsee_dist.metrics.sts import Pairs, spearman_of
from unsee_dist.report.encoders import Sets
from unsee_dist.report.pairs import of_pairs


def test_gold_pairs_have_their_spearman_and_an_interval() -> None:
    rng = np.random.default_rng(3)
    first, second = [f"a{i}" for i in range(200)], [f"b{i}" for i in range(200)]
    gold = rng.uniform(0, 5, 200)
    base = rng.normal(size=(200, 8))

    def embed(noise: float) -> dict[str, np.ndarray]:
        turned = base + (5 - gold)[:, None] * noise * rng.normal(size=(200, 8))
        return dict(zip([*first, *second], [*base, *turned], strict=True))

    pairs, before, after = Pairs(first, second, gold), embed(5.0), embed(0.3)
    (view,) = of_pairs(Sets({"dev": pairs}, {}, [], []), before, after, "mine", 0)
    assert view.difference is not None
    expected = spearman_of(pairs, after) - spearman_of(pairs, before)
    assert view.difference.value == pytest.approx(expected, abs=1e-6)
    assert 0 < view.difference.low < expected < view.difference.high
    assert f"{spearman_of(pairs, before):.2f} → {spearman_of(pairs, after):.2f}" in view.plot.unit
