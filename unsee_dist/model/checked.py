"""An encoder and its tokenizer, checked to be able to take every text of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unsee_dist.config.sections import ModelSettings
from unsee_dist.model.encoder import load_encoder, load_tokenizer
from unsee_dist.model.limits import check_texts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def load_checked(model: ModelSettings) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The encoder on the CPU and its tokenizer. UserError: it cannot be loaded, or cannot take texts of model.max_tokens."""
    encoder, tokenizer = load_encoder(model.encoder, model.dropout), load_tokenizer(model.encoder)
    check_texts(model.encoder, encoder, tokenizer, model.max_tokens)
    return encoder, tokenizer
