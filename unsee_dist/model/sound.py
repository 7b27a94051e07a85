"""A small encoder that is whole: what a library cannot load of another folder, but of this, is that folder's fault."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
WIDTH = 8


def loads_sound_encoder(load: Callable[[str], object]) -> bool:
    """Whether `load`, called with a folder, takes an encoder that is whole. Whatever it raises, the answer is no."""
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng([]):
        try:
            write_sound_encoder(Path(folder))
            load(folder)
        except Exception:
            return False
    return True


def write_sound_encoder(folder: Path) -> None:
    """For transformers and for sentence-transformers, as this package and both of them write encoders."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {f"{word[1:-1].lower()}_token": word for word in WORDS[:5]}
    PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=WIDTH,
        max_position_embeddings=64,
    )
    config.save_pretrained(folder)
    weights = BertModel(config, add_pooling_layer=False).state_dict()
    save_file(
        weights, folder / "model.safetensors", metadata={"format": "pt"}
    )  # without transformers' progress bar
    _write_json(folder / "modules.json", [_module(0, "", "Transformer"), _module(1, "1_Pooling", "Pooling")])
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": 16, "do_lower_case": False})
    pooling = {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True}
    _write_json(folder / "1_Pooling" / "config.json", pooling)


def _module(number: int, path: str, kind: str) -> dict[str, object]:
    return {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
