"""What an encoder can take is known before it is trained: with models made here, of each kind, without a network."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import transformers as hf
from encoders import ARCHITECTURES, SMALL, make_encoder

from unsee_dist.config.sections import ModelSettings
from unsee_dist.errors import UserError
from unsee_dist.model.checked import load_checked
from unsee_dist.model.encoder import load_encoder, load_tokenizer
from unsee_dist.model.fresh import FreshSize, write_fresh
from unsee_dist.model.limits import check_both_sides, check_kind, check_texts, longest

TEXT = ["A cat sat on a mat.", "The dog ate the cat.", "Mats are flat."]
ROWS = 40  # of each table of positions
NO_LIMIT: dict[str, tuple[Any, Any]] = {
    "deberta-v2": (
        hf.DebertaV2Model,
        hf.DebertaV2Config(
            **SMALL, relative_attention=True, position_biased_input=False, pos_att_type=["c2p"]
        ),
    ),
    "xlnet": (hf.XLNetModel, hf.XLNetConfig(vocab_size=60, d_model=16, n_layer=1, n_head=2, d_inner=32)),
}
MORE: dict[str, tuple[Any, Any]] = {
    "xlm-roberta": (hf.XLMRobertaModel, hf.XLMRobertaConfig(**SMALL, pad_token_id=1)),
    "roberta, padded with 3": (hf.RobertaModel, hf.RobertaConfig(**SMALL, pad_token_id=3)),
    "albert": (hf.AlbertModel, hf.AlbertConfig(**SMALL, embedding_size=16)),
    "roformer": (hf.RoFormerModel, hf.RoFormerConfig(**SMALL)),
}
LONGEST = {
    "roberta": ROWS - 2,
    "mpnet": ROWS - 2,
    "xlm-roberta": ROWS - 2,
    "roberta, padded with 3": ROWS - 4,
}


def made(name: str) -> Any:
    if name in ARCHITECTURES:
        return make_encoder(name)
    kind, config = (MORE | NO_LIMIT)[name]
    torch.manual_seed(0)
    return kind(config)


def encodes(encoder: Any, tokens: int) -> bool:
    """Whether a text of so many tokens is encoded at all: the oracle."""
    try:
        with torch.no_grad():
            encoder.eval()(input_ids=torch.full((1, tokens), 7))
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("name", [*ARCHITECTURES, *MORE])
def test_the_longest_text_is_encoded_and_one_token_more_is_not(name: str) -> None:
    encoder = made(name)
    most = longest(encoder)
    assert most == LONGEST.get(name, ROWS)
    assert (encodes(encoder, most), encodes(encoder, most + 1)) == (True, False)
    assert encoder.training is False


@pytest.mark.parametrize("name", NO_LIMIT)
def test_relative_positions_have_no_limit(name: str) -> None:
    encoder = made(name)
    assert longest(encoder) is None
    assert encodes(encoder, 3 * ROWS)
    check_texts(name, encoder, hf.BertTokenizerFast(vocab={"[UNK]": 0, "a": 59}), 10**6)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    write_fresh(folder, TEXT, FreshSize(60, 16, 1, 2, 24), 0)
    return folder


def test_max_tokens_above_the_positions_names_the_largest(bert: Path) -> None:
    load_checked(ModelSettings(encoder=str(bert), max_tokens=24))
    with pytest.raises(UserError) as caught:
        load_checked(ModelSettings(encoder=str(bert), max_tokens=25))
    assert str(caught.value) == (
        f"model.max_tokens = 25 is more than {bert} has positions for. Write at most 24."
    )


def test_a_tokenizer_with_more_entries_than_embeddings_is_refused(bert: Path) -> None:
    encoder, tokenizer = load_encoder(str(bert), None), load_tokenizer(str(bert))
    rows = encoder.get_input_embeddings().weight.shape[0]
    missing = rows - len(tokenizer)
    tokenizer.add_tokens([f"zz{i}" for i in range(missing)])
    check_texts(str(bert), encoder, tokenizer, 24)  # as many as there are
    tokenizer.add_tokens(["qqq"])
    with pytest.raises(UserError) as caught:
        check_texts(str(bert), encoder, tokenizer, 24)
    assert str(caught.value) == (
        f"model.encoder = {bert} has {rows} embeddings, and its tokenizer numbers up to {rows} ('qqq'), so that some texts cannot "
        "be encoded. Take the tokenizer that belongs to it, or give the encoder the missing rows: "
        "model.resize_token_embeddings(len(tokenizer)), then save both."
    )


T5 = hf.T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
BART = hf.BartConfig(
    vocab_size=60, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2
)  # fmt: skip
GPT2 = hf.GPT2Config(
    vocab_size=60, n_embd=16, n_layer=1, n_head=2, n_positions=40, bos_token_id=1, eos_token_id=2
)
LLAMA = hf.LlamaConfig(
    vocab_size=60, num_hidden_layers=1, hidden_size=16, num_attention_heads=2, intermediate_size=32
)
VIT = hf.ViTConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32
)
REFUSED = {
    "an encoder with a decoder (t5)": (hf.T5Model, T5),
    "an encoder with a decoder (bart)": (hf.BartModel, BART),
    "a decoder (gpt2)": (hf.GPT2Model, GPT2),
    "a decoder (llama)": (hf.LlamaModel, LLAMA),
    "not an encoder of texts (vit)": (hf.ViTModel, VIT),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_encoder_alone_is_refused(what: str, tmp_path: Path) -> None:
    kind, config = REFUSED[what]
    torch.manual_seed(0)
    kind(config).save_pretrained(tmp_path)
    with pytest.raises(UserError) as caught:
        load_encoder(str(tmp_path), None)
    assert str(caught.value).startswith(f"model.encoder = {tmp_path} is {what}")
    assert str(caught.value).endswith("Write an encoder, such as bert-base-uncased.")


def test_a_configuration_without_a_type_is_refused_without_one() -> None:
    with pytest.raises(UserError, match=r"mine is an encoder with a decoder \(unknown\)"):
        check_kind("mine", cast(Any, SimpleNamespace(is_encoder_decoder=True)))


def test_a_decoder_is_found_by_two_texts_that_differ_in_their_last_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder, texts = make_encoder("bert"), list[list[int]]()
    encode = encoder.forward

    def keep(**given: Any) -> Any:
        texts.extend(given["input_ids"].tolist())
        return encode(**given)

    monkeypatch.setattr(encoder, "forward", keep)
    check_both_sides("mine", encoder)
    assert texts == [[5, 6, 7, 8, 3], [5, 6, 7, 8, 4]]


def test_an_encoder_that_sees_nothing_but_positions_is_no_decoder() -> None:
    """Its states differ by position, and never by token: neither does the last."""
    encoder = make_encoder("bert")
    with torch.no_grad():
        encoder.embeddings.word_embeddings.weight.zero_()
    check_both_sides("mine", encoder)


def test_an_encoder_at_one_point_is_no_decoder(tmp_path: Path) -> None:
    """It gives the same whatever it reads. That is found, and said, when it is evaluated."""
    encoder = make_encoder("bert")
    with torch.no_grad():
        encoder.encoder.layer[-1].output.LayerNorm.weight.zero_()
    encoder.save_pretrained(tmp_path)
    load_encoder(str(tmp_path), None)


@pytest.mark.parametrize("load", [lambda name: load_encoder(name, None), load_tokenizer])
def test_the_code_of_a_folder_is_never_run(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal transformers asks, and goes on after a "y"."""
    mark = tmp_path / "was-run"
    (tmp_path / "own.py").write_text(f"open({str(mark)!r}, 'w')\n")
    auto = {"AutoConfig": "own.Config", "AutoModel": "own.Model", "AutoTokenizer": ["own.Slow", "own.Fast"]}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Own", "auto_map": auto}))
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(
        UserError, match=r"which is never run\. Write an encoder of a type that transformers itself has, such"
    ):
        load(str(tmp_path))
    assert not mark.exists()
