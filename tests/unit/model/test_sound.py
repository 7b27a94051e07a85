"""What cannot be loaded: a damaged folder is a sentence, whatever transformers raises for it; a bug keeps its traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentence_transformers
import transformers
from safetensors.numpy import load_file, save_file

from unsee_dist.errors import UserError
from unsee_dist.evaluation.models import open_model
from unsee_dist.model.encoder import load_encoder, load_tokenizer
from unsee_dist.model.sound import loads_sound_encoder, write_sound_encoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "encoder"
    write_sound_encoder(made)
    return made


def other(name: str, **values: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))

    return change


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def wrong_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][:, :4].copy()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"garbage" * 9)


@pytest.mark.parametrize(
    "damage",
    [
        text("config.json", "null"),
        text("config.json", "7"),
        text("config.json", "{"),
        text("model.safetensors", "no header"),
        other("config.json", model_type="unheard-of"),
        other("config.json", model_type=[]),
        other("config.json", hidden_size="wide"),
        other("config.json", hidden_size=-4),
        other("config.json", num_attention_heads=0),
        other("config.json", hidden_act="unheard-of"),
        wrong_shape,
        pickled,
        lambda folder: (folder / "model.safetensors").unlink(),
    ],
)
def test_a_damaged_encoder_is_a_sentence(damage: Callable[[Path], object], folder: Path) -> None:
    damage(folder)
    with pytest.raises(UserError, match=r"^model\.encoder = .*encoder could not be loaded: .") as met:
        load_encoder(str(folder), 0.1)
    assert "\n" not in str(met.value)
    shutil.rmtree(folder / "1_Pooling")
    for name in ("modules.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"Export it again\.$"):
        open_model(str(folder))


@pytest.mark.parametrize(
    "damage",
    [
        text("tokenizer.json", "{}"),
        text("tokenizer.json", "[]"),
        other("tokenizer.json", model={"type": "unheard-of"}),
        other("tokenizer.json", model=None),
        text("tokenizer_config.json", "[]"),
        other("tokenizer_config.json", pad_token=7),
    ],
)
def test_a_damaged_tokenizer_is_a_sentence(damage: Callable[[Path], object], folder: Path) -> None:
    damage(folder)
    with pytest.raises(UserError, match=r"^model\.encoder = .*encoder could not be loaded: ."):
        load_tokenizer(str(folder))


BUGS = [TypeError("planted"), AttributeError("planted"), KeyError("planted"), RuntimeError("planted")]


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize(
    ("place", "load"),
    [
        ("transformers.BertModel.__init__", lambda name: load_encoder(name, 0.1)),
        ("transformers.BertConfig.__init__", lambda name: load_encoder(name, 0.1)),
        ("transformers.PreTrainedTokenizerFast.__init__", load_tokenizer),
        ("sentence_transformers.SentenceTransformer._load_modules", open_model),
        ("transformers.BertModel.__init__", open_model),
    ],
)
def test_a_bug_deep_in_a_library_is_no_damaged_folder(
    bug: Exception, place: str, load: Callable[[str], object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(str(folder))

    def fails(*_: Any, **__: Any) -> None:
        raise bug

    assert transformers
    assert sentence_transformers
    monkeypatch.setattr(place, fails)
    with pytest.raises(type(bug)) as met:
        load(str(folder))
    assert met.value is bug


def test_the_sound_encoder_is_loaded_and_changes_no_random_number() -> None:
    import torch

    before = torch.get_rng_state()
    assert loads_sound_encoder(lambda folder: transformers.AutoModel.from_pretrained(folder))
    assert loads_sound_encoder(load_tokenizer)
    assert torch.equal(torch.get_rng_state(), before)
    assert not loads_sound_encoder(lambda _: 1 / 0)
