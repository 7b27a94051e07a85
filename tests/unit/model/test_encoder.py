"""Packed rows give the padded embeddings on stock encoders, and an encoder that mixes sentences is found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import planted
from transformers import (
    BertConfig,
    BertModel,
    LayoutLMConfig,
    LayoutLMModel,
    ModernBertConfig,
    ModernBertModel,
)
from unit.model.encoders import ARCHITECTURES, SMALL, make_encoder, sentences

from unsee_dist.data.stream.mask_keys import mask_keys
from unsee_dist.data.stream.packing import pack
from unsee_dist.errors import UserError
from unsee_dist.model import dropout as dropout_module
from unsee_dist.model import encoder as encoder_module
from unsee_dist.model.dropout import attention, install, register
from unsee_dist.model.encoder import encode, load_encoder, load_tokenizer, packs_exactly
from unsee_dist.model.limits import check_both_sides


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_equals_padded(name: str, pooling: Any) -> None:
    encoder = make_encoder(name).eval()
    if not packs_exactly(encoder, pooling, 24):
        assert name == "distilbert"  # takes no positions: data.pack: auto pads it
        return
    tokens = sentences(17, seed=3)
    with torch.no_grad():
        packed, padded = (
            encode(encoder, pack(tokens, 30, 1, shared), pooling, views=2) for shared in (True, False)
        )
    assert packed.shape == (34, 16)
    assert torch.allclose(packed, padded, atol=1e-5)
    assert not torch.allclose(packed[0], packed[1], atol=1e-3)


@pytest.mark.parametrize("ignored", ["attention_mask", "position_ids"])
def test_an_encoder_that_ignores_the_mask_or_the_positions_is_found_out(ignored: str) -> None:
    class Careless(BertModel):
        def forward(self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None) -> Any:
            given = {"attention_mask": attention_mask, "position_ids": position_ids}
            if attention_mask.ndim == 4:
                given[ignored] = None
            return super().forward(input_ids, **given)

    torch.manual_seed(0)
    assert packs_exactly(BertModel(BertConfig(**SMALL), add_pooling_layer=False), "mean", 24)
    assert not packs_exactly(Careless(BertConfig(**SMALL), add_pooling_layer=False), "mean", 24)


@pytest.mark.parametrize("drops", [False, True])
def test_layers_that_look_at_near_tokens_only_are_packed_while_sentences_are_short(drops: bool) -> None:
    """A 4-D mask takes the place of their own: sentences longer than the window would see all of themselves."""
    torch.manual_seed(0)
    size = {**SMALL, "max_position_embeddings": 128, "local_attention": 16, "pad_token_id": 0}
    rates = {"attention_dropout": 0.1, "embedding_dropout": 0.1} if drops else {}
    config = ModernBertConfig(**size, **rates, attn_implementation=register())
    encoder = ModernBertModel(config)
    install(encoder)
    assert packs_exactly(encoder, "mean", 8)
    assert not packs_exactly(encoder, "mean", 64)


def test_an_encoder_that_gives_nan_for_a_packed_row_is_padded() -> None:
    class Undefined(BertModel):
        def forward(self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None) -> Any:
            hidden = super().forward(input_ids, attention_mask=attention_mask, position_ids=position_ids)[0]
            return (hidden * float("nan") if attention_mask.ndim == 4 else hidden,)

    assert not packs_exactly(Undefined(BertConfig(**SMALL), add_pooling_layer=False), "mean", 24)


def test_an_encoder_of_few_positions_is_tried_with_sentences_that_it_has_room_for() -> None:
    config = BertConfig(**{**SMALL, "max_position_embeddings": 4})
    assert packs_exactly(BertModel(config, add_pooling_layer=False), "mean", 4)


@pytest.mark.parametrize("error", [IndexError, AssertionError, AttributeError, NotImplementedError])
def test_an_encoder_whose_code_fails_with_a_packed_row_is_padded(error: type[Exception]) -> None:
    class TwoDimensional(BertModel):
        def forward(self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None) -> Any:
            if attention_mask.ndim == 4:
                raise error("no mask of four dimensions")
            return super().forward(input_ids, attention_mask=attention_mask, position_ids=position_ids)

    assert not packs_exactly(TwoDimensional(BertConfig(**SMALL), add_pooling_layer=False), "mean", 24)


@pytest.mark.parametrize("part", ["attention_mask", "pack", "mask_keys", "_first_position"])
def test_a_bug_of_ours_is_no_encoder_that_cannot_be_packed(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = BertConfig(**SMALL)
    config._attn_implementation = register()
    encoder = BertModel(config, add_pooling_layer=False)
    install(encoder)
    monkeypatch.setattr(encoder_module, part, planted(encoder_module))
    with pytest.raises(KeyError, match="planted"):
        packs_exactly(encoder, "mean", 24)


def test_an_encoder_that_widens_the_mask_of_a_packed_row_is_padded() -> None:
    class Wider(BertModel):
        def forward(self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None) -> Any:
            query = self.embeddings(input_ids, position_ids=position_ids)[:, None]
            mask = attention_mask[:, None, None]
            return (attention(self, query, query, query, mask)[0][:, :, 0],)

    config = BertConfig(**SMALL)
    assert not packs_exactly(Wider(config, add_pooling_layer=False), "mean", 24)


def test_each_view_has_its_own_dropout_masks_and_zero_turns_them_off(shared: Path) -> None:
    mini = str(shared / "models" / "wiki-bert-mini")
    micro_batch = pack(sentences(4, seed=1), 64, 0, True, mask_keys(0, 1, np.arange(4)))
    for dropout, equal in ((None, False), (0.0, True), (0.3, False)):
        first, second = encode(load_encoder(mini, dropout), micro_batch, "mean", views=2).chunk(2)
        assert torch.allclose(first, second, atol=1e-6) == equal, dropout


def test_a_pooler_that_is_called_in_any_case_is_left_out(tmp_path: Path) -> None:
    LayoutLMModel(LayoutLMConfig(**SMALL)).save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path), 0.0)
    assert not any("pooler" in name for name, _ in encoder.named_parameters())
    assert encode(encoder, pack(sentences(4, seed=1), 30, 1, False), "mean", views=1).shape == (4, 16)


def test_an_encoder_that_fails_with_a_short_text_is_a_sentence() -> None:
    class Demanding(BertModel):
        def forward(self, *_: Any, **__: Any) -> Any:
            raise TypeError("a picture, too, please")

    with pytest.raises(UserError, match=r"mine \(bert\) fails with a text of 5 tokens.*TypeError: a picture"):
        check_both_sides("mine", Demanding(BertConfig(**SMALL)))


def test_a_bug_of_our_attention_is_no_mistake_in_model_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropout_module, "attention", planted(dropout_module))
    config = BertConfig(**SMALL)
    config._attn_implementation = register()
    with pytest.raises(KeyError, match="planted"):
        check_both_sides("mine", BertModel(config, add_pooling_layer=False))


def test_an_encoder_without_a_pooler_and_its_tokenizer_are_loaded(shared: Path) -> None:
    mini = str(shared / "models" / "wiki-bert-mini")
    encoder = load_encoder(mini, None)
    assert not any("pooler" in name for name, _ in encoder.named_parameters())
    assert encoder.training
    assert load_tokenizer(mini)("A word.")["input_ids"][0] == load_tokenizer(mini).cls_token_id
