"""A trained encoder as a folder that `SentenceTransformer(folder)` loads, in versions 5.1 to 6.x.

Written by hand: a model saved by sentence-transformers 6.2 names modules that 5.1 does not have, and a
tokenizer saved by transformers 5 names classes that 4.57 does not have.

    modules.json, config_sentence_transformers.json, README.md
    config.json, model.safetensors, sentence_bert_config.json, tokenizer files      the encoder
    1_Pooling/config.json                                                           mean or cls

A run's own folder has a modules.json, too, which names its best/, else its final/.
"""

import copy
import inspect
import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import get_args

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModel, PretrainedConfig, PreTrainedTokenizerBase

from unsee_dist.config.sections import Pooling
from unsee_dist.errors import UserError, writing
from unsee_dist.files.atomic import atomic_folder, write_file
from unsee_dist.files.contents import owner_name
from unsee_dist.files.room import require_room

MODULES = "modules.json"
REMEDY = "Make room, then write the same command again: it continues."


def write_encoder(
    folder: Path,
    state: Mapping[str, Tensor],
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    pooling: str,
    max_tokens: int,
) -> None:
    """Write the encoder into `folder`, replacing an older export only when the new one is complete.

    state: the encoder's parameters under its own names (those of AutoModel, no prefix), any device; saved
    as fp32. pooling: "mean" or "cls". max_tokens: word pieces a sentence is cut to, special ones included.
    UserError: it cannot be written, or does not fit on the disk. A kill at any moment leaves the old folder, the new one, or both halves of the exchange for `recover_folder`.
    """
    if pooling not in get_args(Pooling):
        raise UserError(f"model.pooling = {pooling} cannot be exported. Write mean or cls.")
    size = 4 * sum(value.numel() for value in state.values())
    require_room(folder, size, "An encoder", REMEDY)
    with writing(folder, REMEDY), atomic_folder(folder, owner_name(folder.parent)) as new:
        (new / "1_Pooling").mkdir()
        _write_weights(new, state)
        _write_config(new, config)
        _write_tokenizer(new, tokenizer, config, max_tokens)
        _write_layout(new, config, pooling, max_tokens)


def _write_weights(new: Path, state: Mapping[str, Tensor]) -> None:
    # Cloned: safetensors refuses tensors that share memory, and tied weights do.
    tensors = {name: value.detach().to("cpu", torch.float32).clone() for name, value in state.items()}
    save_file(tensors, new / "model.safetensors", metadata={"format": "pt"})


def _model_class(config: PretrainedConfig) -> type[torch.nn.Module] | None:
    classes = AutoModel._model_mapping.get(type(config), None)
    return classes[0] if isinstance(classes, list | tuple) else classes


def _write_config(new: Path, config: PretrainedConfig) -> None:
    config = copy.deepcopy(config)
    model = _model_class(config)
    # The encoder was often loaded from a language model: without its head it is another architecture.
    config.architectures = [model.__name__] if model is not None else None
    config.dtype = torch.float32
    config.save_pretrained(new)


def _write_tokenizer(
    new: Path, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, max_tokens: int
) -> None:
    tokenizer.save_pretrained(new)
    path = new / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["model_max_length"] = max_tokens
    # transformers 5 writes a backend, a class and a list that 4.57 cannot read; 5 still reads the old names.
    # is_local and local_files_only say how the tokenizer was loaded here, not what it is.
    for key in ("backend", "is_local", "local_files_only"):
        settings.pop(key, None)
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("extra_special_tokens"), list):
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    # sentence-transformers 5.1 passes on all that the tokenizer gives; DistilBERT takes no token types.
    names = settings.get("model_input_names", tokenizer.model_input_names)
    settings["model_input_names"] = [name for name in names if name in _inputs(config, names)]
    _json(path, settings)
    _cut_in_tokenizer(new, max_tokens)


def _cut_in_tokenizer(new: Path, max_tokens: int) -> None:
    """The tokenizer by itself cuts texts, too: beside model.onnx it is often read without the other files."""
    path = new / "tokenizer.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    cut = {"direction": "Right", "max_length": max_tokens, "strategy": "LongestFirst", "stride": 0}
    path.write_text(
        json.dumps(settings | {"truncation": cut}, indent=2, ensure_ascii=False), encoding="utf-8"
    )


def cut_texts(folder: Path, max_tokens: int) -> None:
    """Lower the limits that an export has or lacks to `max_tokens`, so that no text is too long for its encoder."""
    for name, key in (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ):
        path = folder / name
        settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if (settings.get(key) or math.inf) > max_tokens:
            _json(path, settings | {key: max_tokens})
    if (folder / "tokenizer.json").is_file():
        _cut_in_tokenizer(folder, max_tokens)


def point_to(run: Path, export: str) -> None:
    """Write modules.json into a run's folder: `SentenceTransformer(run)` then loads its folder `export`. Nothing is copied."""
    modules = _modules(export, f"{export}/1_Pooling")
    if not (run / MODULES).is_file() or (run / MODULES).read_text(encoding="utf-8") != modules:
        with writing(run / MODULES, REMEDY):
            write_file(run / MODULES, modules)


def _modules(encoder: str, pooling: str) -> str:
    """The text of modules.json. encoder, pooling: their folders, as seen from the file's."""
    kinds = [("0", encoder, "Transformer"), ("1", pooling, "Pooling")]
    modules = [
        {"idx": int(name), "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for name, path, kind in kinds
    ]
    return _text(modules)


def _write_layout(new: Path, config: PretrainedConfig, pooling: str, max_tokens: int) -> None:
    (new / MODULES).write_text(_modules("", "1_Pooling"), encoding="utf-8")
    encoder: dict[str, object] = {"max_seq_length": max_tokens, "do_lower_case": False}
    if _has_pooler(config):  # not trained, not saved, not used: without this, loaders make a random one
        encoder["model_args"] = {"add_pooling_layer": False}
    _json(new / "sentence_bert_config.json", encoder)
    _json(
        new / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": config.hidden_size,
            "pooling_mode_cls_token": pooling == "cls",
            "pooling_mode_mean_tokens": pooling == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )
    _json(
        new / "config_sentence_transformers.json",
        {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    (new / "README.md").write_text(
        CARD.format(width=config.hidden_size, pooling=pooling, max_tokens=max_tokens)
    )


def _inputs(config: PretrainedConfig, unknown: list[str]) -> Collection[str]:
    model = _model_class(config)
    return unknown if model is None else inspect.signature(model.forward).parameters


def _has_pooler(config: PretrainedConfig) -> bool:
    model = _model_class(config)
    return model is not None and "add_pooling_layer" in inspect.signature(model).parameters


def _json(path: Path, value: object) -> None:
    path.write_text(_text(value), encoding="utf-8")


def _text(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


CARD = """---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [sentence-transformers, feature-extraction, sentence-similarity, unsee]
---
# A sentence encoder trained without labels

Trained with unsee_dist, after UNSEE (arXiv:2401.15316). {width} numbers a sentence, {pooling} pooling,
sentences cut to {max_tokens} word pieces, compared by cosine.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/of/this/folder")
vectors = model.encode(["A first sentence.", "A second one."])
print(model.similarity(vectors, vectors))
```
"""
