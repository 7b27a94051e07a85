"""Masks are what their definition says, on every path that computes them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unsee_dist.data.stream.mask_keys import mask_keys
from unsee_dist.model import masks

MASK = (1 << 64) - 1


def h(x: int) -> int:
    """splitmix64's finaliser, as published."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def combined(key: int, part: int) -> int:
    return h(((key ^ (part & MASK)) + 0x9E3779B97F4A7C15) & MASK)


def lane(key: int, n: int) -> int:
    """16 bits for feature, or key position, n: the definition, with Python's integers."""
    other = combined(key, 0)
    constant = h(((n // 4 + 1) * 0x9E3779B97F4A7C15) & MASK) | 1
    word = (key * constant + other) & MASK
    word ^= word >> 32
    return (word >> (16 * (n % 4))) & 0xFFFF


def test_mixing_is_splitmix64_on_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [0, 1, -1, 2**63 - 1, -(2**63), 12345]
    expected = [h(value & MASK) for value in values]
    on_cpu = masks.mix(torch.tensor(values))
    monkeypatch.setattr(torch.Tensor, "device", property(lambda _: SimpleNamespace(type="cuda")))
    elsewhere = masks.mix(torch.tensor(values))
    monkeypatch.undo()
    assert [value & MASK for value in on_cpu.tolist()] == expected
    assert torch.equal(on_cpu, elsewhere)


def unsigned(x: torch.Tensor) -> list[int]:
    return [value & 0xFFFF for value in x.flatten().tolist()]


@pytest.mark.parametrize("features", [1, 4, 7, 16])
def test_hidden_lanes_are_the_definition(features: int) -> None:
    rows_RT = torch.tensor([[3, -5, 2**62], [-(2**63), 0, 17]])
    drawn = masks.hidden_lanes(rows_RT, 9, features)
    assert (drawn.shape, drawn.dtype) == ((2, 3, features), torch.int16)
    expected = [
        lane(combined(key & MASK, 9), n) for key in rows_RT.flatten().tolist() for n in range(features)
    ]
    assert unsigned(drawn) == expected


def test_attention_lanes_are_the_definition() -> None:
    rows_RT = torch.tensor([[3, -5], [-(2**63), 0]])
    drawn = masks.attention_lanes(rows_RT, 4, 3, 6)
    assert drawn.shape == (2, 3, 2, 6)
    expected = [
        lane(combined(combined(key & MASK, 4), head), n)
        for row in rows_RT.tolist()
        for head in range(3)
        for key in row
        for n in range(6)
    ]
    assert unsigned(drawn) == expected


def test_away_from_a_cpu_lanes_are_drawn_there() -> None:
    rows_RT = torch.zeros(2, 3, dtype=torch.int64, device="meta")
    for lanes, shape in (
        (masks.hidden_lanes(rows_RT, 9, 5), (2, 3, 5)),
        (masks.attention_lanes(rows_RT, 9, 4, 6), (2, 4, 3, 6)),
    ):
        assert (lanes.device.type, lanes.dtype, tuple(lanes.shape)) == ("meta", torch.int16, shape)


def test_blocks_on_a_cpu_are_the_whole_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = torch.from_numpy(np.random.default_rng(0).integers(-(2**63), 2**63, (5, 37), dtype=np.int64))
    whole = masks._words(keys, masks.combined(keys, 0), 11)
    for cached in (1, 40, 1 << 15):
        monkeypatch.setattr(masks, "CACHED_WORDS", cached)
        assert torch.equal(masks._words_on_cpu(keys, masks.combined(keys, 0), 11), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.75, 0.5, 0.1, 2**-15])
def test_the_share_of_all_lanes_that_drops_is_exactly_p(p: float, dtype: torch.dtype) -> None:
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    factors = masks.multiplier(every, p, dtype)
    dropped = round(p * 2**15)
    assert (factors.dtype, factors.shape) == (dtype, (2**16,))
    assert (factors == 0).sum().item() == 2 * dropped
    kept = torch.tensor(1 / (1 - dropped / 2**15), dtype=dtype)
    assert set(factors.unique().tolist()) == {0.0, kept.item()}


def test_the_key_of_a_sentence_depends_on_seed_step_and_id_alone() -> None:
    ids = np.array([5, 0, 2**40, 7])
    keys = mask_keys(3, 11, ids)
    assert (keys.dtype, keys.shape) == (np.int64, (4,))
    assert mask_keys(3, 11, ids[::-1]).tolist() == keys[::-1].tolist()
    assert mask_keys(3, 11, ids[2:3]).tolist() == keys[2:3].tolist()
    others = np.concatenate([keys, mask_keys(4, 11, ids), mask_keys(3, 12, ids), mask_keys(12, 3, ids)])
    assert len(set(others.tolist())) == 16


def test_masks_are_pinned() -> None:
    """A resumed run drops what the uninterrupted one did, also under a later version."""
    keys = torch.from_numpy(mask_keys(2024, 7, np.array([123])))
    drawn = masks.hidden_lanes(masks.combined(masks.combined(keys, 0), 1)[None], 2, 8)
    assert unsigned(drawn) == [54215, 38845, 3309, 25284, 45922, 15022, 14678, 28625]
