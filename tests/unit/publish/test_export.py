"""An exported folder gives the encoder's own vectors in sentence-transformers and in plain transformers."""

import contextlib
import json
import warnings

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerFast,
)

from unsee_dist.files.atomic import recover_folder
from unsee_dist.publish.sentence_transformers import write_encoder

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *["the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "far", "##s", "##ed"],
]
SENTENCES = ["The cat sat on the mat", "a dog ran", "dogs", "the " * 40, "far and far, and"]
MAX_TOKENS = 12


def _bert_tokenizer():
    return BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)})


def _own_tokenizer():
    inner = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names, additional_special_tokens=["[MASK]"])


def _bert(seed=0):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, architectures=["BertForMaskedLM"],
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False).eval()


def _distilbert():
    torch.manual_seed(1)
    config = DistilBertConfig(vocab_size=len(WORDS), dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    return DistilBertModel(config).eval()


def _vectors(model, tokenizer, pooling):
    batch = tokenizer(SENTENCES, truncation=True, max_length=MAX_TOKENS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden_BTD = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0]
    if pooling == "cls":
        return hidden_BTD[:, 0].numpy()
    mask_BT1 = batch["attention_mask"][..., None]
    return ((hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)).numpy()


def _load(folder):
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # 6.x says that 5.1's module names are old: so they are
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("tokenizer", [_bert_tokenizer, _own_tokenizer])
@pytest.mark.parametrize("model", [_bert, _distilbert])
def test_the_folder_gives_the_encoders_vectors(tmp_path, model, tokenizer, pooling):
    encoder, words = model(), tokenizer()
    write_encoder(tmp_path / "best", encoder.state_dict(), encoder.config, words, pooling, MAX_TOKENS)
    expected = _vectors(encoder, words, pooling)
    loaded = _load(tmp_path / "best")
    assert loaded.max_seq_length == MAX_TOKENS
    np.testing.assert_allclose(loaded.encode(SENTENCES), expected, atol=1e-5)
    plain = AutoModel.from_pretrained(tmp_path / "best").eval()
    again = AutoTokenizer.from_pretrained(tmp_path / "best")
    np.testing.assert_allclose(_vectors(plain, again, pooling), expected, atol=1e-5)
    assert len(np.unique(expected.round(4), axis=0)) == len(SENTENCES)  # the case can tell


def test_weights_are_saved_as_fp32_also_from_bf16_and_shared_memory(tmp_path):
    encoder = _bert()
    state = {name: value.to(torch.bfloat16) for name, value in encoder.state_dict().items()}
    state["embeddings.position_embeddings.weight"] = state["embeddings.word_embeddings.weight"][:1].expand(
        64, 16
    )
    write_encoder(tmp_path / "best", state, encoder.config, _bert_tokenizer(), "mean", MAX_TOKENS)
    loaded = AutoModel.from_pretrained(tmp_path / "best")
    assert all(value.dtype == torch.float32 for value in loaded.state_dict().values())
    for name, value in state.items():
        torch.testing.assert_close(loaded.state_dict()[name], value.float(), rtol=0, atol=0)


@pytest.mark.parametrize("tokenizer", [_bert_tokenizer, _own_tokenizer])
def test_nothing_names_what_older_versions_lack_nor_where_it_was_made(tmp_path, tokenizer):
    encoder = _bert()
    write_encoder(tmp_path / "best", encoder.state_dict(), encoder.config, tokenizer(), "mean", MAX_TOKENS)
    modules = json.loads((tmp_path / "best/modules.json").read_text())
    assert [m["type"] for m in modules] == [
        f"sentence_transformers.models.{m}" for m in ("Transformer", "Pooling")
    ]
    words = json.loads((tmp_path / "best/tokenizer_config.json").read_text())
    assert words["tokenizer_class"] in ("BertTokenizer", "PreTrainedTokenizerFast")
    assert not isinstance(words.get("extra_special_tokens"), list)
    assert json.loads((tmp_path / "best/config.json").read_text())["architectures"] == ["BertModel"]
    assert encoder.config.architectures == ["BertForMaskedLM"]  # ours to read, not to change
    for path in (tmp_path / "best").rglob("*.json"):
        assert str(tmp_path) not in path.read_text()


@pytest.mark.parametrize(("model", "types"), [(_bert, True), (_distilbert, False)])
def test_the_tokenizer_gives_only_what_the_encoder_takes(tmp_path, model, types):
    encoder = model()
    write_encoder(
        tmp_path / "best", encoder.state_dict(), encoder.config, _bert_tokenizer(), "mean", MAX_TOKENS
    )
    assert ("token_type_ids" in AutoTokenizer.from_pretrained(tmp_path / "best")("a cat")) == types


def test_a_new_export_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path):
    for seed in (0, 1):
        encoder = _bert(seed)
        write_encoder(
            tmp_path / "best", encoder.state_dict(), encoder.config, _bert_tokenizer(), "mean", MAX_TOKENS
        )
        (tmp_path / "best" / "stale").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    np.testing.assert_allclose(
        _load(tmp_path / "best").encode(SENTENCES), _vectors(_bert(1), _bert_tokenizer(), "mean"), atol=1e-5
    )


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("at", range(20))
def test_killed_at_any_replacement_or_deletion_there_is_a_whole_export_after_recovery(
    tmp_path, monkeypatch, at
):
    import os
    import shutil
    from pathlib import Path

    def write(seed):
        encoder = _bert(seed)
        write_encoder(
            tmp_path / "best", encoder.state_dict(), encoder.config, _bert_tokenizer(), "mean", MAX_TOKENS
        )

    write(0)
    calls = [0]

    def failing(real):
        def call(*arguments, **settings):
            calls[0] += 1
            if calls[0] > at:
                raise _Killed
            return real(*arguments, **settings)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", failing(Path.rename))
        patched.setattr(shutil, "rmtree", failing(shutil.rmtree))
        patched.setattr(os, "fsync", failing(os.fsync))
        with contextlib.suppress(_Killed):
            write(1)
    recover_folder(tmp_path / "best")
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    found = _load(tmp_path / "best").encode(SENTENCES)
    one_of = [_vectors(_bert(seed), _bert_tokenizer(), "mean") for seed in (0, 1)]
    assert min(np.abs(found - vectors).max() for vectors in one_of) < 1e-5


def test_an_unknown_pooling_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"model\.pooling = max cannot be exported"):
        write_encoder(tmp_path / "best", {}, BertConfig(), _bert_tokenizer(), "max", MAX_TOKENS)
    assert not list(tmp_path.iterdir())


def test_a_real_model_keeps_its_vectors(shared, tmp_path):
    source = shared / "models/wiki-bert-mini"
    encoder = AutoModel.from_pretrained(source, add_pooling_layer=False).eval()
    words = AutoTokenizer.from_pretrained(source)
    write_encoder(tmp_path / "best", encoder.state_dict(), encoder.config, words, "mean", MAX_TOKENS)
    np.testing.assert_allclose(
        _load(tmp_path / "best").encode(SENTENCES), _vectors(encoder, words, "mean"), atol=1e-5
    )
