"""What an encoder is loaded as, and the sentence about each one that cannot be: with models made here, without network."""

from __future__ import annotations

import errno
import importlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub.errors import HfHubHTTPError, Response
from planted import planted
from torch import Tensor, nn
from transformers import DistilBertConfig, DistilBertModel, SqueezeBertConfig, SqueezeBertModel
from transformers.utils import logging

from unsee_dist.errors import TransientError, UserError
from unsee_dist.evaluation.models import open_model
from unsee_dist.model import dropout
from unsee_dist.model import encoder as encoder_module
from unsee_dist.model.encoder import layout_warning, load_encoder, load_tokenizer
from unsee_dist.model.fresh import FreshSize, write_fresh

TEXT = ["A cat sat on a mat.", "The dog ate the cat.", "Mats are flat."]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    write_fresh(folder, TEXT, FreshSize(60, 16, 1, 2, 24), 0)
    return folder


@pytest.fixture
def copy(bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bert, tmp_path / "copy"))


class Recorded:
    """Stands in for one of transformers' Auto classes: keeps what it was called with, and raises what it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: str, answer: Any, *errors: Exception) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        pending = list(errors)

        def from_pretrained(source: str, **arguments: Any) -> Any:
            self.calls.append((source, arguments))
            if pending:
                raise pending.pop(0)
            return answer

        monkeypatch.setattr(getattr(transformers, kind), "from_pretrained", from_pretrained)


@pytest.fixture
def no_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """owner/name has a configuration without a dropout, and is no encoder that could be tried."""
    Recorded(monkeypatch, "AutoConfig", SimpleNamespace())
    monkeypatch.setattr("unsee_dist.model.encoder.drops_by_sentence", lambda _: True)


def tiny() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3))


def test_an_encoder_is_loaded_to_be_trained_in_fp32_without_a_pooler(bert: Path) -> None:
    encoder = load_encoder(str(bert), None)
    assert encoder.training
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert encoder.pooler is None
    assert encoder.config.hidden_dropout_prob == 0.1
    low = transformers.AutoModel.from_pretrained(bert).bfloat16()
    low.save_pretrained(bert.parent / "low")
    lifted = load_encoder(str(bert.parent / "low"), None)
    assert {parameter.dtype for parameter in lifted.parameters()} == {torch.float32}


def test_a_dropout_of_ours_takes_the_place_of_the_encoders(bert: Path) -> None:
    encoder = load_encoder(str(bert), 0.37)
    assert (encoder.config.hidden_dropout_prob, encoder.config.attention_probs_dropout_prob) == (0.37, 0.37)
    rates = {module.p for module in encoder.modules() if isinstance(module, dropout.Dropout)}
    assert rates == {0.37}
    assert not any(isinstance(module, nn.Dropout) for module in encoder.modules())
    assert encoder.config._attn_implementation == dropout.NAME


def test_the_dropouts_of_other_architectures_are_found_by_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "unsee_dist.model.encoder.drops_by_sentence", lambda _: True
    )  # SimpleNamespace cannot be tried
    heads = ["classifier_dropout", "seq_classif_dropout", "qa_dropout", "summary_last_dropout", "layerdrop"]
    for present in (
        ["hidden_dropout_prob", "attention_probs_dropout_prob", "dropout"],
        ["attention_dropout", "embedding_dropout", "mlp_dropout", "activation_dropout", "hidden_dropout"],
        ["attn_pdrop", "resid_pdrop", "embd_pdrop"],
        [],
    ):
        config = SimpleNamespace(
            **dict.fromkeys([*present, *heads], 0.1), pooler_dropout=None, use_dropout=True
        )
        Recorded(monkeypatch, "AutoConfig", config)
        asked = Recorded(monkeypatch, "AutoModel", tiny())
        load_encoder("owner/name", 0.2)
        rates = {key: value for key, value in asked.calls[0][1].items() if "drop" in key}
        assert rates == dict.fromkeys(present, 0.2)
    load_encoder("owner/name", 0.0)
    assert asked.calls[1][1]["layerdrop"] == 0.0


def test_loading_is_quiet_and_transformers_is_as_it_was_afterwards(
    bert: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = logging.get_verbosity()
    logging.set_verbosity_info()
    logging.enable_progress_bar()
    inside: list[tuple[int, bool]] = []
    load = transformers.AutoModel.from_pretrained

    def from_pretrained(*arguments: Any, **named: Any) -> Any:
        inside.append((logging.get_verbosity(), logging.is_progress_bar_enabled()))
        return load(*arguments, **named)

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", from_pretrained)
    load_encoder(str(bert), None)
    assert inside == [(logging.ERROR, False)]
    assert logging.get_verbosity() == logging.INFO
    assert logging.is_progress_bar_enabled()
    logging.set_verbosity(before)
    assert "UNEXPECTED" not in capsys.readouterr().err


def test_an_architecture_without_a_switch_for_its_pooler_is_loaded_and_loses_it(tmp_path: Path) -> None:
    size: dict[str, Any] = {"vocab_size": 60, "num_hidden_layers": 1, "num_attention_heads": 2}
    groups = dict.fromkeys(
        ("q_groups", "k_groups", "v_groups", "post_attention_groups", "intermediate_groups", "output_groups"),
        1,
    )
    squeeze = SqueezeBertModel(
        SqueezeBertConfig(**size, **groups, hidden_size=16, embedding_size=16, intermediate_size=32)
    )
    assert squeeze.pooler is not None
    squeeze.save_pretrained(tmp_path / "squeeze")
    loaded = load_encoder(str(tmp_path / "squeeze"), None)
    assert not any(name.startswith("pooler") for name, _ in loaded.named_parameters())
    distil = DistilBertModel(DistilBertConfig(vocab_size=60, dim=16, n_layers=1, n_heads=2, hidden_dim=32))
    distil.save_pretrained(tmp_path / "distil")
    loaded = load_encoder(str(tmp_path / "distil"), 0.0)
    assert (loaded.config.dropout, loaded.config.attention_dropout) == (0.0, 0.0)
    assert torch.equal(
        loaded.state_dict()["embeddings.word_embeddings.weight"], distil.embeddings.word_embeddings.weight
    )


@pytest.mark.usefixtures("no_config")
def test_the_switch_is_left_out_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Recorded(monkeypatch, "AutoModel", tiny(), TypeError("unexpected keyword add_pooling_layer"))
    load_encoder("owner/name", None)
    (first, with_switch), (second, without) = asked.calls
    assert (first, second) == ("owner/name", "owner/name")
    assert with_switch == {"add_pooling_layer": False} | without


def test_weights_that_are_not_finite_are_refused_by_name(bert: Path, copy: Path) -> None:
    model = transformers.AutoModel.from_pretrained(bert)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[3, 2] = torch.nan
    model.save_pretrained(copy)
    with pytest.raises(UserError) as caught:
        load_encoder(str(copy), None)
    assert str(caught.value) == (
        f"model.encoder = {copy} has weights that are not finite (NaN or infinite): embeddings.word_embeddings.weight. "
        "Training cannot repair them: write another encoder."
    )


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "~/nowhere", "a/b/c"])
def test_a_path_that_is_no_folder_is_told_from_a_hub_name(name: str) -> None:
    for load in (load_tokenizer, lambda name: load_encoder(name, None), lambda name: load_encoder(name, 0.1)):
        with pytest.raises(UserError) as caught:
            load(name)
        assert str(caught.value) == (
            f"model.encoder = {name} is not a folder. Write the folder of an encoder or a hub name."
        )


@pytest.mark.parametrize("name", ["owner/nothing-of-this-name", "nothing-of-this-name"])
def test_a_hub_name_that_is_not_here_says_what_to_do(name: str) -> None:
    for load in (load_tokenizer, lambda name: load_encoder(name, None), lambda name: load_encoder(name, 0.1)):
        with pytest.raises(UserError) as caught:
            load(name)
        assert str(caught.value) == (
            f"model.encoder = {name} is neither a folder here nor in the local hub cache, and the hub cannot be reached. "
            "Write a folder, check the spelling, or download it first where there is a network: "
            f"`hf download {name}`."
        )


def test_a_folder_under_home_and_a_folder_without_a_slash_are_folders(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(bert.parent))
    monkeypatch.chdir(bert.parent)
    for name in (f"~/{bert.name}", f"./{bert.name}", bert.name, f"../{bert.parent.name}/{bert.name}"):
        assert load_encoder(name, None).config.hidden_size == 16
        assert load_tokenizer(name).is_fast


def test_a_folder_without_config_json_is_no_encoder(copy: Path) -> None:
    (copy / "config.json").unlink()
    for load in (load_tokenizer, lambda name: load_encoder(name, None)):
        with pytest.raises(UserError) as caught:
            load(str(copy))
        assert str(caught.value) == (
            f"model.encoder = {copy} has no config.json, so it is not a Hugging Face encoder. Write the folder of one."
        )


def test_a_folder_without_a_tokenizer_is_an_encoder_all_the_same(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    assert load_encoder(str(copy), None).training
    with pytest.raises(UserError) as caught:
        load_tokenizer(str(copy))
    assert str(caught.value) == (
        f"model.encoder = {copy} lacks a tokenizer. Copy tokenizer.json and tokenizer_config.json into that folder."
    )


class Tokenizer(transformers.PreTrainedTokenizerFast):
    """Of a size, with three special tokens."""

    def __init__(self, size: int) -> None:
        self.size = size

    @property
    def all_special_tokens(self) -> list[str]:
        return ["[PAD]", "[UNK]", "[CLS]"]

    def __len__(self) -> int:
        return self.size


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.txt", "vocab.json", "spiece.model"])
def test_each_kind_of_vocabulary_is_a_tokenizer(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("config.json", file):
        (tmp_path / name).write_text("{}")
    found = Tokenizer(4)
    asked = Recorded(monkeypatch, "AutoTokenizer", found)
    assert load_tokenizer(str(tmp_path)) is found
    assert asked.calls == [(str(tmp_path), {"trust_remote_code": False})]


def test_a_tokenizer_of_nothing_but_special_tokens_and_a_slow_one_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Recorded(monkeypatch, "AutoTokenizer", Tokenizer(3))
    with pytest.raises(UserError) as caught:
        load_tokenizer("owner/name")
    assert str(caught.value) == (
        "model.encoder = owner/name lacks a tokenizer (no vocabulary was found). "
        "Copy tokenizer.json and tokenizer_config.json into that folder."
    )
    Recorded(monkeypatch, "AutoTokenizer", SimpleNamespace(is_fast=False))
    with pytest.raises(UserError) as caught:
        load_tokenizer("owner/name")
    assert str(caught.value) == (
        "model.encoder = owner/name has only a slow tokenizer. Save one with tokenizer.json beside it."
    )


@pytest.mark.parametrize("part", ["register", "_load_weights", "_dropouts"])
def test_a_bug_of_ours_is_no_encoder_that_cannot_be_loaded(
    part: str, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, part, planted(encoder_module, "ValueError('planted')"))
    with pytest.raises(ValueError, match=r"^planted$") as met:
        load_encoder(str(bert), 0.1)
    assert type(met.value) is ValueError


@pytest.mark.parametrize("kind", ["AutoModel", "AutoTokenizer"])
@pytest.mark.parametrize("error", [OSError("no such file\nand more"), ValueError("no such file\nand more")])
def test_a_folder_that_cannot_be_read_gives_the_reasons_first_line(
    kind: str, error: Exception, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Recorded(monkeypatch, kind, tiny(), error)
    with pytest.raises(UserError) as caught:
        load_tokenizer(str(bert)) if kind == "AutoTokenizer" else load_encoder(str(bert), None)
    assert str(caught.value) == f"model.encoder = {bert} could not be loaded: no such file"
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "nosuch"},
        {"hidden_size": 0},
        {"hidden_size": "16"},
        {"pad_token_id": 99999},
        {"max_position_embeddings": 0},
        {"max_position_embeddings": 512},
        {"vocab_size": 7},
        {"model_type": "t5"},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"x": [[]]},
    ],
    ids=str,
)
def test_a_config_that_no_model_can_be_made_of_is_a_sentence(change: dict[str, object], copy: Path) -> None:
    path = copy / "config.json"
    nested = "[" * 20_000 if "x" in change else None
    path.write_text(nested or json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"could not be loaded: (its weights have other shapes|no model can)"):
        load_encoder(str(copy), None)
    with pytest.raises(UserError, match=r"cannot be loaded as a sentence encoder|is cut off"):
        open_model(str(copy))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            RuntimeError("shapes differ\nuse ignore_mismatched_sizes"),
            "its weights have other shapes than its config.json states. Correct it, or write another encoder.",
        ),
        (ValueError("no such file\nand more"), "no such file"),
        (
            TypeError("a  b\n c" + "d" * 300),
            f"no model can be made of its config.json and its tokenizer (TypeError: a b c{'d' * 295}). Correct it, or "
            "write another encoder.",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_why_no_model_could_be_made(error: Exception, sentence: str) -> None:
    assert encoder_module._why_not_made(error) == sentence


def test_the_code_of_a_folder_is_not_run_where_transformers_has_the_architecture(
    copy: Path, tmp_path: Path
) -> None:
    mark, path = tmp_path / "was-run", copy / "config.json"
    (copy / "own.py").write_text(f"open({str(mark)!r}, 'w')\n")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoModel": "own.Model"}}))
    assert type(load_encoder(str(copy), None)) is transformers.BertModel
    assert not mark.exists()


def test_an_encoder_whose_masks_are_not_known_is_a_warning(bert: Path) -> None:
    encoder = load_encoder(str(bert), None)
    assert layout_warning("mine", encoder) == ""
    dropout.remove(encoder)
    assert layout_warning("mine", encoder) == (
        "mine does not encode a sentence in the same way beside any others (it draws its dropout by torch's own generator in "
        "places that are not known here, or looks beyond the sentence): train.micro_batch, parallel.zero and the number of "
        "ranks change the result."
    )
    assert encoder.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("kind", ["AutoModel", "AutoTokenizer"])
@pytest.mark.usefixtures("no_config")
def test_a_fault_that_passes_and_a_bug_stay_what_they_are(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (OSError(errno.ESTALE, "stale"), KeyError("bug")):
        Recorded(monkeypatch, kind, tiny(), error, error)  # also for the encoder that is known to be whole
        with pytest.raises(type(error)) as caught:
            load_tokenizer("owner/name") if kind == "AutoTokenizer" else load_encoder("owner/name", None)
        assert caught.value is error


@pytest.mark.usefixtures("no_config")
def test_a_hub_that_does_not_answer_now_may_do_so_later(monkeypatch: pytest.MonkeyPatch) -> None:
    library = importlib.import_module(Response.__module__.partition(".")[0])
    response = Response(503, request=library.Request("GET", "https://localhost"))
    Recorded(monkeypatch, "AutoModel", tiny(), HfHubHTTPError("try again", response=response))
    with pytest.raises(TransientError, match=r"^model\.encoder = owner/name is neither a folder here"):
        load_encoder("owner/name", None)


def test_weights_of_a_hub_name_are_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    Recorded(monkeypatch, "AutoModel", tiny(), OSError("not in the cache"))
    with pytest.raises(
        UserError, match=r"^model\.encoder = owner/name is neither a folder here nor in the local hub"
    ):
        load_encoder("owner/name", None)


@pytest.mark.usefixtures("no_config")
def test_a_pooler_with_parameters_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.pooler = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.words(x)

    Recorded(monkeypatch, "AutoModel", Pooled().eval())
    encoder = load_encoder("owner/name", None)
    assert [name for name, _ in encoder.named_parameters()] == ["words.weight", "words.bias"]
    assert encoder.training
