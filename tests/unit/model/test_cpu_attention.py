"""The CPU's own attention against torch's, with scores far enough apart that a wrong scale is seen."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from unsee_dist.model import cpu_dropout
from unsee_dist.model.cpu_dropout import Dropout, attention, drop

ROWS, HEADS, T, D = 2, 3, 5, 4
TRAINING, READING = SimpleNamespace(training=True), SimpleNamespace(training=False)


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(8)
    query, key, value = (2 * torch.randn(ROWS, HEADS, T, D, generator=generator).double() for _ in range(3))
    mask = torch.zeros(ROWS, 1, T, T, dtype=torch.float64)
    mask[0, :, :, 3:] = -1e9
    return query, key, value, mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_it_is_torchs_attention_with_the_heads_moved_inwards(masked: bool, scaling: float | None) -> None:
    query, key, value, mask = inputs()
    given = mask if masked else None
    expected = F.scaled_dot_product_attention(query, key, value, given, scale=scaling)
    mixed, weights = attention(
        READING, query, key, value, given, scaling=scaling, dropout=0.5, sliding_window=9
    )
    assert mixed.is_contiguous()
    torch.testing.assert_close(mixed, expected.transpose(1, 2))
    torch.testing.assert_close(weights.sum(-1), torch.ones(ROWS, HEADS, T, dtype=torch.float64))
    assert (weights[0, :, :, 3:] == 0).all().item() is masked


def test_weights_are_dropped_in_training_only_and_only_when_asked_to() -> None:
    query, key, value, _ = (x.float() for x in inputs())
    whole = attention(READING, query, key, value, None, dropout=0.5)[1]
    assert torch.equal(attention(TRAINING, query, key, value, None)[1], whole)
    torch.manual_seed(1)
    mixed, weights = attention(TRAINING, query, key, value, None, dropout=0.5)
    kept = weights != 0
    assert 0.2 < kept.double().mean() < 0.8
    torch.testing.assert_close(weights[kept], 2 * whole[kept])
    torch.testing.assert_close(mixed, (weights @ value).transpose(1, 2))


def test_it_is_registered_under_the_name_that_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (AttentionInterface._global_mapping, AttentionMaskInterface._global_mapping):
        monkeypatch.delitem(table, cpu_dropout.NAME, raising=False)
    assert cpu_dropout.register() == cpu_dropout.NAME
    assert AttentionInterface()[cpu_dropout.NAME] is attention
    assert AttentionMaskInterface()[cpu_dropout.NAME] is eager_mask


def test_a_layer_drops_in_training_and_leaves_alone_what_is_read() -> None:
    layer, x = Dropout(0.5), torch.ones(200)
    torch.manual_seed(1)
    dropped = layer(x)
    torch.manual_seed(1)
    assert torch.equal(dropped, drop(x, 0.5))
    assert (dropped == 0).any()
    assert layer.eval()(x) is x
    assert repr(layer) == "Dropout(p=0.5)"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [(), (1,), (3, 5), (2, 3, 7)])
def test_any_number_of_elements_keeps_its_shape(size: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.full(size, 3.0, dtype=dtype)
    dropped = drop(x, 0.5)
    assert (dropped.shape, dropped.dtype) == (x.shape, dtype)
    assert set(dropped.flatten().tolist()) <= {0.0, 6.0}
    assert drop(x, 0.0) is x


def test_the_masks_of_a_seed_are_pinned() -> None:
    """A resumed run must drop what the uninterrupted one did: other bits from the same seed would be another run."""
    torch.manual_seed(2024)
    assert drop(torch.ones(16), 0.5).bool().int().tolist() == [1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0]
    assert drop(torch.ones(16, dtype=torch.bfloat16), 0.25).bool().int().tolist() == [
        1,
        1,
        0,
        1,
        1,
        0,
        1,
        0,
        1,
        1,
        1,
        1,
        1,
        0,
        0,
        1,
    ]


@pytest.mark.parametrize("p", [0.75, 0.5, 0.1, 2**-15])
def test_the_share_that_is_dropped_is_exactly_p(p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the 2^15 numbers that a bf16 element may draw, with either sign, once: of them p · 2^15 drop."""

    class EveryNumber:
        def __init__(self, _seed: int) -> None: ...

        def random_raw(self, words: int) -> np.ndarray:
            assert words == 2**14
            return np.arange(2**16, dtype=np.uint16).view(np.uint64)

    monkeypatch.setattr(np.random, "SFC64", EveryNumber)
    dropped = (drop(torch.ones(2**16, dtype=torch.bfloat16), p) == 0).sum().item()
    assert dropped == 2 * round(p * 2**15)
