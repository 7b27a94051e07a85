"""Dropout by sentence: each stock encoder drops the same in any rows and company; attention is torch's."""

from __future__ import annotations

import copy
import re
import sys
from contextlib import AbstractContextManager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionInterface, AutoModel, BertConfig, BertModel, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface
from unit.model.encoders import ARCHITECTURES, SMALL, make_encoder, sentences

from unsee_dist.data.stream.mask_keys import mask_keys
from unsee_dist.data.stream.packing import MicroBatch, pack
from unsee_dist.model import dropout, mask_rows, masks
from unsee_dist.model.dropout import TARGET, Dropout, attention, install, masks_of, register, set_network
from unsee_dist.model.encoder import drops_by_sentence, encode, packs_exactly

IDS = np.array([4, 1, 900, 2, 77, 5, 6])


SENTENCES = sentences(7, seed=3)


def made(name: str) -> PreTrainedModel:
    """MPNet computes its attention itself, and drops its weights by a module."""
    module = make_encoder(name, "eager" if name == "mpnet" else register()).train()
    install(module)
    return module


def encoded(
    encoder: PreTrainedModel, shared: bool, which: list[int], step: int = 1, views: int = 2
) -> Tensor:
    """(views, sentences, D)"""
    tokens, keys = [SENTENCES[i] for i in which], mask_keys(0, step, IDS[which])
    with torch.no_grad():
        flat = encode(encoder, pack(tokens, 30, 1, shared, keys), "mean", views)
    return flat.view(views, len(which), -1)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_masks_do_not_know_rows_neighbours_or_order(name: str) -> None:
    encoder = made(name)
    assert drops_by_sentence(encoder)
    assert not any(type(module) is nn.Dropout for module in encoder.modules())
    every = list(range(7))
    whole = encoded(encoder, False, every)
    shapes = [(False, [i]) for i in every] + [(False, [5, 0, 3])]
    if packs_exactly(encoder, "mean", 24):
        shapes += [(True, every), (True, every[::-1]), (True, [6]), (True, [2, 4, 1])]
    for shared, which in shapes:
        torch.testing.assert_close(encoded(encoder, shared, which), whole[:, which], atol=2e-6, rtol=1e-5)
    assert torch.equal(encoded(encoder, False, every), whole)  # drawn again: the same bits


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_views_networks_steps_and_sentences_have_masks_of_their_own(name: str) -> None:
    encoder = made(name)
    target = copy.deepcopy(encoder)
    set_network(target, TARGET)
    first, second = encoded(encoder, False, [0, 1, 2])
    assert masks_of(encoder) is not masks_of(target)
    others = [second, *encoded(target, False, [0, 1, 2]), encoded(encoder, False, [0, 1, 2], step=2)[0]]
    for other in others:
        assert ((first - other).abs().amax(1) > 1e-2).all()
    twice = pack([SENTENCES[0]] * 2, 30, 1, False, mask_keys(0, 1, np.array([4, 5])))
    with torch.no_grad():
        same_text = encode(encoder, twice, "mean", 1)
    assert (same_text[0] - same_text[1]).abs().max() > 1e-2


def by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The known wrong way: keys of the places in the micro-batch."""
    right = dropout.Masks.of

    def of(self: dropout.Masks, micro_batch: MicroBatch, views: int) -> AbstractContextManager[None]:
        return right(self, replace(micro_batch, keys=torch.arange(micro_batch.sentences)), views)

    monkeypatch.setattr(dropout.Masks, "of", of)


def without_views(monkeypatch: pytest.MonkeyPatch) -> None:
    right = dropout.masks.combined
    monkeypatch.setattr(
        dropout.masks,
        "combined",
        lambda key, part: right(key, 0 if isinstance(part, int) and part < 2 else part),
    )


@pytest.mark.parametrize("shared", [False, True])
def test_a_text_for_each_view_has_that_view_s_masks(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text as if its sentence had it in every view. Under the masks of one view for both, it fails."""
    encoder, which = made("bert"), [0, 1, 2]
    keys = mask_keys(0, 1, IDS[which])

    def both() -> Tensor:
        texts = [text for i in which for text in (SENTENCES[i], SENTENCES[i + 3])]
        with torch.no_grad():
            return encode(encoder, pack(texts, 30, 1, shared, keys, views=2), "mean", 2).view(
                2, len(which), -1
            )

    with torch.no_grad():
        alone = [
            encode(encoder, pack([SENTENCES[i + 3 * view] for i in which], 30, 1, False, keys), "mean", 2)[
                3 * view :
            ][:3]
            for view in range(2)
        ]
    torch.testing.assert_close(both(), torch.stack(alone), atol=2e-6, rtol=1e-5)
    without_views(monkeypatch)
    assert (both()[1] - alone[1]).abs().max() > 1e-2


def test_masks_by_place_fail_the_law(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = made("bert")
    by_row(monkeypatch)
    whole, some = encoded(encoder, False, [0, 1, 2]), encoded(encoder, False, [2, 1])
    assert (whole[:, 2] - some[:, 0]).abs().max() > 1e-2
    assert not drops_by_sentence(encoder)


def test_masks_without_view_and_network_fail_the_law(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = made("bert")
    target = copy.deepcopy(encoder)
    set_network(target, TARGET)
    without_views(monkeypatch)
    first, second = encoded(encoder, False, [0, 1, 2])
    assert torch.equal(first, second)
    assert torch.equal(first, encoded(target, False, [0, 1, 2])[0])


class Functional(BertModel):
    """It drops once more, by torch's function: nothing that could be replaced."""

    rate = 0.1

    def forward(self, *arguments: Any, **named: Any) -> Any:
        (hidden,) = super().forward(*arguments, **named, return_dict=False)[:1]
        return (F.dropout(hidden, self.rate, self.training),)


def test_an_encoder_whose_dropout_is_not_found_keeps_torchs_seeded_by_its_sentences() -> None:
    torch.manual_seed(0)
    config = BertConfig(**SMALL)
    config._attn_implementation = register()
    encoder = Functional(config, add_pooling_layer=False).train()
    install(encoder)
    assert not drops_by_sentence(encoder)
    dropout.remove(encoder)
    assert masks_of(encoder) is None
    assert any(type(module) is nn.Dropout for module in encoder.modules())
    assert not any(isinstance(module, Dropout) for module in encoder.modules())
    assert not any({"masks", "mask_site"} & module.__dict__.keys() for module in encoder.modules())
    assert encoder.config._attn_implementation == "sdpa"
    dropout.remove(encoder)  # a second time is none too many
    state = torch.random.get_rng_state()
    first = encoded(encoder, False, [0, 1, 2])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(encoded(encoder, False, [0, 1, 2]), first)  # encoded again in backward
    assert not torch.allclose(encoded(encoder, False, [0, 1, 2], step=2), first, atol=1e-3)
    set_network(encoder, TARGET)
    assert not torch.allclose(encoded(encoder, False, [0, 1, 2]), first, atol=1e-3)


def test_without_sentences_in_training_is_our_mistake_and_in_evaluation_none() -> None:
    encoder, micro_batch = made("bert"), pack(SENTENCES, 30, 0, True)
    with pytest.raises(RuntimeError, match=r"^an encoder in training mode has no sentences"):
        encode(encoder, micro_batch, "mean", 1)
    assert encode(encoder.eval(), micro_batch, "mean", 1).isfinite().all()


def test_dropout_of_another_shape_is_refused() -> None:
    own = dropout.Masks()
    keys = mask_keys(0, 1, np.arange(2))
    with own.of(pack([[1, 2], [3]], 4, 0, False, keys), 1):
        for shape in ((2, 5, 3), (2, 3, 5, 2), (2, 3, 2, 5), (5, 3, 2, 2), (2, 2)):
            with pytest.raises(dropout.UnknownShape, match=re.escape(f"{shape} over rows of shape (2, 2)")):
                own.drop(torch.ones(shape), 0.1, 0)
    with own.of(pack([[1, 2], [3]], 4, 0, False, keys), 1):
        whole = torch.ones(2, 2, 3)
        assert own.drop(whole, 0.0, 0) is whole


def test_each_call_of_a_module_has_a_site_of_its_own() -> None:
    own, x = dropout.Masks(), torch.ones(2, 2, 64)
    batch = pack([[1, 2], [3, 4]], 4, 0, False, mask_keys(0, 1, np.arange(2)))
    with own.of(batch, 1):
        assert own.rows is not None
        for call in range(4):
            lanes = masks.hidden_lanes(own.rows.keys_RT, 7 + dropout.CALL * call, 64)
            assert torch.equal(own.drop(x, 0.5, 7), masks.multiplier(lanes, 0.5, x.dtype))


@pytest.mark.parametrize("shape", [(2, 2, 3), (2, 5, 2, 2)])
def test_a_gpu_with_triton_drops_by_the_kernel(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[object, ...]] = []

    def dropped(*arguments: object) -> object:
        given.append(arguments)
        return arguments[0]

    kernels = SimpleNamespace(dropped=dropped)
    monkeypatch.setitem(sys.modules, "unsee_dist.model.mask_kernels", kernels)
    monkeypatch.setattr("unsee_dist.model.mask_kernels", kernels, raising=False)
    monkeypatch.setattr(mask_rows, "has_triton", lambda: True)
    with FakeTensorMode():
        x, keys = torch.empty(shape, device="cuda"), torch.empty(2, 2, dtype=torch.int64, device="cuda")
        own = dropout.Masks()
        own.rows = mask_rows.MaskRows(keys, keys)
        assert own.drop(x, 0.25, 3) is x
        with pytest.raises(dropout.UnknownShape):
            own.drop(torch.empty(2, 2, device="cuda"), 0.25, 3)
    assert len(given) == 1
    assert all(one is other for one, other in zip(given[0][:3], (x, keys, keys), strict=True))
    assert given[0][3:] == (0.25, 3)


def packed_rows() -> mask_rows.MaskRows:
    own, keys = dropout.Masks(), mask_keys(0, 1, IDS)
    with own.of(pack(SENTENCES, 30, 0, True, keys), 2):
        assert own.rows is not None
        return own.rows


@pytest.mark.parametrize(("width", "longest"), [(12, 12), (12, 2), (13, 13), (30, 10), (64, 64)])
def test_lanes_of_packed_sentences_are_equal_gathered_and_shifted(width: int, longest: int) -> None:
    random = np.random.default_rng(width)
    sentences = [[1] * length for length in random.integers(1, longest + 1, 200)]
    own, keys = dropout.Masks(), mask_keys(0, 1, np.arange(len(sentences)))
    with own.of(pack(sentences, width, 0, True, keys), 2):
        rows = own.rows
    assert rows is not None
    assert rows.positions_RT is not None
    assert rows.spans_N3 is not None
    gathered = mask_rows.gathered_lanes(rows.keys_RT, rows.positions_RT, 5, 3)
    shifted = mask_rows.shifted_lanes(rows.keys_RT, rows.spans_N3, 5, 3)
    assert gathered.shape == shifted.shape
    assert len(rows.spans_N3) == 2 * len(sentences)
    for row, start, end in rows.spans_N3.tolist():
        inside = (row, slice(None), slice(start, end), slice(start, end))
        assert torch.equal(gathered[inside], shifted[inside])


def test_lanes_stay_on_the_device_of_their_keys() -> None:
    """Without numpy, and without a look at the values: torch's meta device has none."""
    rows = packed_rows()
    assert rows.positions_RT is not None
    away = mask_rows.MaskRows(rows.keys_RT.to("meta"), rows.positions_RT.to("meta"))
    lanes = mask_rows.attention_lanes(away, 5, 3)
    assert (lanes.device.type, lanes.shape) == ("meta", mask_rows.attention_lanes(rows, 5, 3).shape)


def test_kernels_for_a_gpu_are_left_alone_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    own, x = dropout.Masks(), torch.ones(2, 2, 3)
    batch = pack([[1, 2], [3, 4]], 4, 0, False, mask_keys(0, 1, np.arange(2)))
    with own.of(batch, 1):
        expected = own.drop(x, 0.5, 0)
    monkeypatch.setattr(mask_rows, "has_triton", lambda: True)
    with own.of(batch, 1):
        assert torch.equal(own.drop(x, 0.5, 0), expected)


def test_a_place_that_is_reached_again_in_a_forward_has_masks_of_its_own() -> None:
    """ALBERT has one layer, which it calls again and again."""
    own, x = dropout.Masks(), torch.ones(2, 2, 64)
    batch = pack([[1, 2], [3, 4]], 4, 0, False, mask_keys(0, 1, np.arange(2)))
    with own.of(batch, 1):
        first, other_site, second = (own.drop(x, 0.5, site) for site in (3, 4, 3))
    with own.of(batch, 1):
        again = own.drop(x, 0.5, 3)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(other_site, second)


def test_a_generator_that_is_used_is_seen_where_nothing_was_dropped() -> None:
    config = BertConfig(**SMALL)
    config._attn_implementation = register()
    encoder = Functional(config, add_pooling_layer=False).train()
    install(encoder)
    encoder.rate = 1e-9
    assert not drops_by_sentence(encoder)


@pytest.mark.parametrize("p", [1e-9, 1 - 1e-9])
def test_a_dropout_near_0_or_1_drops_neither_nothing_nor_all(p: float) -> None:
    lanes = torch.arange(2**15, dtype=torch.int32).to(torch.int16)
    kept = masks.multiplier(lanes.clone(), p, torch.float32)
    assert kept.isfinite().all()
    assert 0 < (kept == 0).sum() < len(lanes)


def test_torchs_attention_comes_back_as_the_encoder_has_it() -> None:
    encoder = made("bert")
    encoder._supports_sdpa = False
    dropout.remove(encoder)
    assert encoder.config._attn_implementation == "eager"


def test_fewer_heads_of_key_and_value_serve_several_of_the_query() -> None:
    query, key, value, mask = inputs()
    query = torch.cat([query, 2 * query[:, :1]], 1)
    key, value = key[:, :2], value[:, :2]
    reading: Any = READING
    mixed, _ = attention(reading, query, key, value, mask)
    expected = F.scaled_dot_product_attention(query, key, value, mask, enable_gqa=True)
    torch.testing.assert_close(mixed, expected.transpose(1, 2))


def test_scores_are_capped_where_an_encoder_asks_for_it() -> None:
    query, key, value, mask = inputs()
    reading: Any = READING
    mixed, weights = attention(reading, query, key, value, mask, softcap=2.0)
    scores = 2 * torch.tanh(query @ key.transpose(2, 3) / D**0.5 / 2) + mask
    torch.testing.assert_close(weights, scores.softmax(-1))
    torch.testing.assert_close(mixed, (scores.softmax(-1) @ value).transpose(1, 2))


ROWS, HEADS, T, D = 2, 3, 5, 4
READING = SimpleNamespace(training=False)


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(8)
    query, key, value = (2 * torch.randn(ROWS, HEADS, T, D, generator=generator) for _ in range(3))
    mask = torch.zeros(ROWS, 1, T, T)
    mask[0, :, :, 3:] = -1e9
    return query, key, value, mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_it_is_torchs_attention_with_the_heads_moved_inwards(masked: bool, scaling: float | None) -> None:
    query, key, value, mask = inputs()
    given = mask if masked else None
    expected = F.scaled_dot_product_attention(query, key, value, given, scale=scaling)
    reading: Any = READING
    mixed, weights = attention(
        reading, query, key, value, given, scaling=scaling, dropout=0.5, sliding_window=9
    )
    assert mixed.is_contiguous()
    torch.testing.assert_close(mixed, expected.transpose(1, 2))
    torch.testing.assert_close(weights.sum(-1), torch.ones(ROWS, HEADS, T))
    assert (weights[0, :, :, 3:] == 0).all().item() is masked


def test_weights_are_dropped_in_training_only_and_only_when_asked_to() -> None:
    query, key, value, _ = inputs()
    own = dropout.Masks()
    training: Any = SimpleNamespace(training=True, masks=own, mask_site=3)
    reading: Any = READING
    whole = attention(reading, query, key, value, None, dropout=0.5)[1]
    assert torch.equal(attention(training, query, key, value, None)[1], whole)
    without_masks: Any = SimpleNamespace(training=True)  # an encoder that never drops its weights
    assert torch.equal(attention(without_masks, query, key, value, None, dropout=0.0)[1], whole)
    with own.of(pack([[1] * T, [2] * T], T, 0, False, mask_keys(0, 1, np.arange(2))), 1):
        mixed, weights = attention(training, query, key, value, None, dropout=0.5)
    kept = weights != 0
    assert 0.2 < kept.double().mean() < 0.8
    torch.testing.assert_close(weights[kept], 2 * whole[kept])
    torch.testing.assert_close(mixed, (weights @ value).transpose(1, 2))


def test_it_is_registered_under_the_name_that_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (AttentionInterface._global_mapping, AttentionMaskInterface._global_mapping):
        monkeypatch.delitem(table, dropout.NAME, raising=False)
    assert register() == dropout.NAME
    assert AttentionInterface()[dropout.NAME] is attention
    assert AttentionMaskInterface()[dropout.NAME] is dropout.mask_of_padding


@pytest.mark.parametrize(("device", "skip"), [(torch.device("cuda", 1), False), ("cpu", None), (None, None)])
def test_on_a_gpu_transformers_does_not_look_whether_a_token_is_padding(
    device: torch.device | str | None, skip: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host would wait for the answer. Everything else is passed on as it came."""
    calls = []
    monkeypatch.setattr(
        "transformers.masking_utils.eager_mask", lambda *args, **named: calls.append((args, named))
    )
    named: dict[str, Any] = {"q_length": 4} | ({} if device is None else {"device": device})
    dropout.mask_of_padding(2, **named)
    expected = named | ({} if skip is None else {"allow_is_bidirectional_skip": skip})
    assert calls == [((2,), expected)]


def test_a_mask_of_too_many_axes_is_named_with_both_shapes() -> None:
    query = torch.ones(1, 2, 3, 4)
    with pytest.raises(
        dropout.UnknownShape, match=r"^a mask of shape \(1, 1, 1, 3, 3\) for scores of shape \(1, 2, 3, 3\)$"
    ):
        attention(nn.Module(), query, query, query, torch.zeros(1, 1, 1, 3, 3))


def test_an_encoder_without_dropout_computes_what_eager_attention_computes() -> None:
    config = BertConfig(**SMALL)
    torch.manual_seed(0)
    eager = AutoModel.from_config(config, attn_implementation="eager").eval()
    ours = AutoModel.from_config(config, attn_implementation=register()).eval()
    ours.load_state_dict(eager.state_dict())
    ids = torch.randint(5, 60, (3, 11))
    mask = (torch.arange(11) < torch.tensor([[11], [4], [7]])).long()
    expected, got = (encoder(ids, attention_mask=mask)[0] for encoder in (eager, ours))
    assert (expected - got).abs().max() < 1e-6
