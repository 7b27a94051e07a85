"""The paired bootstrap: its value is scipy's, its interval covers the truth, and pairing is what makes it narrow."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from unsee_dist.evaluation.intervals import paired_difference


def _case(seed: int, pairs: int = 300, gap: float = 0.0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 26, pairs) / 5  # ties, as people's scores have
    shared = truth + rng.normal(size=pairs) * 2  # what makes a pair hard for both
    a = shared + rng.normal(size=pairs) * 0.7
    b = shared + rng.normal(size=pairs) * (0.7 + gap)
    return a[None], b[None], truth


def test_the_value_is_the_difference_of_scipys_spearmans_and_of_means_over_seeds():
    (a, b, y), (c, d, _) = _case(0), _case(1)
    found = paired_difference(a, b, y)
    assert found.value == pytest.approx(100 * (spearmanr(a[0], y)[0] - spearmanr(b[0], y)[0]))
    both = paired_difference(np.concatenate([a, c]), np.concatenate([b, d]), y)
    means = [np.mean([spearmanr(x, y)[0] for x in (p[0], q[0])]) for p, q in ((a, c), (b, d))]
    assert both.value == pytest.approx(100 * (means[0] - means[1]))
    assert found.low < found.value < found.high


def test_every_draw_is_scipys_spearman_of_the_drawn_pairs():
    a, b, y = _case(2, pairs=60)
    draws = np.random.default_rng(0).integers(0, 60, size=(1000, 60))
    written_out = [100 * (spearmanr(a[0][i], y[i])[0] - spearmanr(b[0][i], y[i])[0]) for i in draws]
    found = paired_difference(a, b, y)
    assert [found.low, found.high] == pytest.approx(np.quantile(written_out, [0.025, 0.975]))


def test_equal_encoders_differ_in_about_one_case_of_twenty_and_unequal_ones_nearly_always():
    equal = [paired_difference(*_case(seed, pairs=120)) for seed in range(30)]
    assert sum(found.low > 0 or found.high < 0 for found in equal) <= 6  # 1.5 expected; P(> 6) = 0.001
    unequal = [paired_difference(*_case(seed, pairs=120, gap=4)) for seed in range(10)]
    assert sum(found.low > 0 for found in unequal) == 10


def test_pairing_matters_draws_of_their_own_would_give_an_interval_that_sees_less():
    a, b, y = _case(3)
    found = paired_difference(a, b, y)
    rng = np.random.default_rng(1)
    apart = []
    for _ in range(400):
        i, j = rng.integers(0, len(y), size=(2, len(y)))
        apart.append(100 * (spearmanr(a[0][i], y[i])[0] - spearmanr(b[0][j], y[j])[0]))
    low, high = np.quantile(apart, [0.025, 0.975])
    assert high - low > 1.5 * (found.high - found.low)
