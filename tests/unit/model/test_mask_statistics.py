"""Statistics of the masks: how many are kept, and that none foretells another along any axis that names it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import binom, chisquare
from torch import Tensor

from unsee_dist.data.stream.mask_keys import mask_keys
from unsee_dist.model import masks

P = 0.1
DEVIATION = (P * (1 - P)) ** 0.5


SEED = 0  # tests/torture/mask_statistics.py takes others


def rows(
    sentences: int = 64, positions: int = 64, *, seed: int = 0, step: int = 1, network: int = 0, view: int = 0
) -> Tensor:
    """(sentences, positions) keys of tokens, as dropout.py makes them."""
    keys = torch.from_numpy(mask_keys(SEED + seed, step, np.arange(sentences)))
    return masks.combined(
        masks.combined(masks.combined(keys, network), view)[:, None], torch.arange(positions)
    )


def dropped(lanes: Tensor) -> Tensor:
    return masks.multiplier(lanes, P, torch.float32) == 0


def hidden(site: int = 3, features: int = 256, **which: int) -> Tensor:
    return dropped(masks.hidden_lanes(rows(**which), site, features))


def attended(site: int = 3, heads: int = 4, **which: int) -> Tensor:
    return dropped(masks.attention_lanes(rows(**which), site, heads, 64))


def test_the_share_that_is_dropped_over_a_hundred_million_draws() -> None:
    count, total = 0, 0
    for step in range(100):
        mask = hidden(step=step)
        count, total = count + int(mask.sum()), total + mask.numel()
    assert total > 1e8
    share = round(P * 2**15) / 2**15
    assert abs(count / total - share) < 4 * (share * (1 - share) / total) ** 0.5


@pytest.mark.parametrize("site", range(0, 200, 20))
def test_the_share_at_each_site_and_of_each_lane(site: int) -> None:
    for mask in (hidden(site), attended(site)):
        share = round(P * 2**15) / 2**15
        assert abs(mask.float().mean().item() - share) < 4.5 * DEVIATION / mask.numel() ** 0.5
        by_column = mask.flatten(0, -2).float().mean(0)
        bound = 5 * DEVIATION / (mask.numel() / mask.shape[-1]) ** 0.5
        assert (by_column - share).abs().max() < bound


def apart(draw: Callable[[], Tensor], distance: int) -> tuple[Tensor, Tensor]:
    mask = draw()
    return mask[..., :-distance], mask[..., distance:]


PAIRS: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "views": lambda: (hidden(view=0), hidden(view=1)),
    "networks": lambda: (hidden(network=0), hidden(network=1)),
    "view of one network and the other of the other": lambda: (
        hidden(network=0, view=1),
        hidden(network=1, view=0),
    ),
    "sites": lambda: (hidden(3), hidden(4)),
    "steps": lambda: (hidden(step=1), hidden(step=2)),
    "seeds": lambda: (hidden(seed=0), hidden(seed=1)),
    "sentences": lambda: (hidden()[:-1], hidden()[1:]),
    "positions": lambda: (hidden()[:, :-1], hidden()[:, 1:]),
    "heads": lambda: (attended()[:, :-1], attended()[:, 1:]),
    "queries": lambda: (attended()[:, :, :-1], attended()[:, :, 1:]),
    **{f"features {n} apart": partial(apart, hidden, n) for n in (1, 2, 3, 4, 5, 8, 16, 64, 128)},
    **{f"keys {n} apart": partial(apart, attended, n) for n in (1, 2, 3, 4, 5, 8)},
    "hidden states and attention of a site": lambda: (hidden(features=64), attended(heads=1)[:, 0]),
}


@pytest.mark.parametrize("name", PAIRS)
def test_no_mask_foretells_another(name: str) -> None:
    first, second = PAIRS[name]()
    correlation = np.corrcoef(first.flatten().numpy(), second.flatten().numpy())[0, 1]
    assert abs(correlation) < 4.5 / first.numel() ** 0.5, correlation


def test_no_two_features_of_a_site_belong_together() -> None:
    """All pairs of 256 features over 65,536 tokens: the largest |r| is what so many independent pairs give."""
    mask = hidden(sentences=1024).flatten(0, 1).float()
    correlations = torch.corrcoef(mask.T).fill_diagonal_(0)
    pairs = 256 * 255 / 2
    expected = (2 * np.log(pairs)) ** 0.5 / len(mask) ** 0.5
    assert 0.8 * expected < correlations.abs().max().item() < 1.35 * expected


def test_a_generator_with_a_fault_is_seen() -> None:
    """The negative control: words without their last pass. Their lower lanes belong together."""
    keys = rows(sentences=1024)
    words = keys[..., None] * masks.constants(64, keys.device) + masks.combined(keys, 0)[..., None]
    mask = dropped(words.view(torch.int16)).flatten(0, 1).float()
    correlations = torch.corrcoef(mask.T).fill_diagonal_(0)
    assert correlations.abs().max().item() > 10 * len(mask) ** -0.5


def test_the_number_that_a_token_drops_is_binomial() -> None:
    """Pairs alone would not show it: features that drop together in threes or more."""
    mask = hidden(sentences=2048).flatten(0, 1)
    share = round(P * 2**15) / 2**15
    counts = np.bincount(mask.sum(1).numpy(), minlength=257)
    expected = binom.pmf(np.arange(257), 256, share) * len(mask)
    cut = slice(10, 45)

    def binned(values: np.ndarray) -> np.ndarray:
        return np.concatenate([[values[:10].sum()], values[cut], [values[45:].sum()]])

    assert chisquare(binned(counts), binned(expected) * (counts.sum() / expected.sum())).pvalue > 1e-3
