"""Small encoders of each stock architecture, with random weights, and sentences for them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)
from transformers.configuration_utils import PreTrainedConfig

SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
DISTIL: dict[str, Any] = {
    "vocab_size": 60,
    "dim": 16,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 32,
    "max_position_embeddings": 40,
}
ARCHITECTURES: dict[str, tuple[Callable[..., PreTrainedModel], PreTrainedConfig]] = {
    "bert": (BertModel, BertConfig(**SMALL)),
    "roberta": (RobertaModel, RobertaConfig(**SMALL, pad_token_id=1)),
    "electra": (ElectraModel, ElectraConfig(**SMALL, embedding_size=16)),
    "mpnet": (MPNetModel, MPNetConfig(**SMALL, pad_token_id=1)),
    "distilbert": (DistilBertModel, DistilBertConfig(**DISTIL)),
    "albert": (
        AlbertModel,
        AlbertConfig(**SMALL, embedding_size=16, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1),
    ),
}


def make_encoder(name: str, attention: str | None = None) -> PreTrainedModel:
    """The same weights at each call, without a pooler. attention: its implementation, None = transformers' choice."""
    kind, config = ARCHITECTURES[name]
    config = copy.deepcopy(config)
    if attention is not None:
        config._attn_implementation = attention
    torch.manual_seed(0)
    made = kind(config)
    if getattr(made, "pooler", None) is not None:
        made.register_module("pooler", None)
    return made


def sentences(count: int, seed: int) -> list[list[int]]:
    """Token ids of sentences of 3 to 24 tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 25, (count,), generator=generator).tolist()
    return [torch.randint(5, 60, (n,), generator=generator).tolist() for n in lengths]
