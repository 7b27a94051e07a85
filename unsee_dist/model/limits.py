"""What an encoder can take: how many tokens a text may have, and which token ids.

Both are looked at, not derived from the encoder's name: a short text is encoded, and which rows of a table of positions it
reads says how many are left for the longest one. (BERT reads from row 0, RoBERTa and MPNet from the padding's id + 1.) An
encoder without such a table has relative or rotary positions, and no limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from unsee_dist.errors import UserError, is_our_bug

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

PROBE = 5  # tokens of the short text
TABLES = ("position_embeddings", "embed_positions", "wpe", "pos_embedding")  # what transformers calls them
INSTEAD = "Write an encoder, such as bert-base-uncased."


def check_kind(name: str, config: PreTrainedConfig) -> None:
    """UserError: this is an encoder with a decoder (T5, BART), or no model of texts. Before any weight is read."""
    from transformers import PreTrainedConfig

    kind = getattr(config, "model_type", "unknown")
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"model.encoder = {name} is an encoder with a decoder ({kind}): its decoder would be trained for nothing. {INSTEAD}"
        )
    sizes = (getattr(config, size, None) for size in ("vocab_size", "hidden_size"))
    if isinstance(config, PreTrainedConfig) and not all(isinstance(size, int) for size in sizes):
        raise UserError(f"model.encoder = {name} is not an encoder of texts ({kind}). {INSTEAD}")


def check_both_sides(name: str, encoder: PreTrainedModel) -> None:
    """UserError: a token is read without those after it, as in a decoder (GPT-2, Llama): it is tried.

    An encoder that has collapsed gives the same whatever it reads, the last token too: that is said elsewhere.
    """
    from transformers import PreTrainedModel

    if not isinstance(encoder, PreTrainedModel):
        return
    try:
        first, second = (_states(encoder, [*range(5, 5 + PROBE - 1), last])[0] for last in (3, 4))
    except Exception as error:  # code of somebody else, which may ask for more than tokens and a mask
        if is_our_bug(error):  # our attention runs inside
            raise
        raise UserError(
            f"model.encoder = {name} ({encoder.config.model_type}) fails with a text of {PROBE} tokens and its mask, which is "
            f"all that training gives: {type(error).__name__}: {error}. {INSTEAD}"
        ) from error
    if torch.equal(first[0], second[0]) and not torch.equal(first[-1], second[-1]):
        raise UserError(
            f"model.encoder = {name} is a decoder ({encoder.config.model_type}): a token does not see those after it. {INSTEAD}"
        )


def check_texts(
    name: str, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> None:
    """UserError: a text of max_tokens, or one with some token of the tokenizer, cannot be encoded."""
    most = longest(encoder)
    if most is not None and max_tokens > most:
        raise UserError(
            f"model.max_tokens = {max_tokens} is more than {name} has positions for. Write at most {most}."
        )
    check_vocabulary(f"model.encoder = {name}", encoder, tokenizer)


def check_vocabulary(what: str, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """UserError: the tokenizer knows a token that the encoder has no embedding of."""
    rows, entries = cast(nn.Embedding, encoder.get_input_embeddings()).num_embeddings, tokenizer.get_vocab()
    token, last = max(entries.items(), key=lambda entry: entry[1])
    if last >= rows:
        raise UserError(
            f"{what} has {rows} embeddings, and its tokenizer numbers up to {last} ({token!r}), so that some texts cannot be "
            "encoded. Take the tokenizer that belongs to it, or give the encoder the missing rows: "
            "model.resize_token_embeddings(len(tokenizer)), then save both."
        )


def longest(encoder: PreTrainedModel) -> int | None:
    """The tokens of the longest text that the encoder can take; None = no limit."""
    read: dict[nn.Embedding, int] = {}
    with _reads(encoder, read):
        _states(encoder, list(range(5, 5 + PROBE)))
    left = [table.num_embeddings - (last - (PROBE - 1)) for table, last in read.items()]
    return min(left, default=None)


@contextmanager
def _reads(encoder: PreTrainedModel, read: dict[nn.Embedding, int]) -> Iterator[None]:
    """Keep in `read` the last row that each table of positions is asked for."""

    def keep(table: nn.Module, given: tuple[Any, ...]) -> None:
        assert isinstance(table, nn.Embedding)
        # RoFormer's is asked for a shape, and gives its first rows
        read[table] = int(given[0].max()) if isinstance(given[0], Tensor) else PROBE - 1

    tables = [
        module
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in TABLES
    ]
    hooks = [table.register_forward_pre_hook(keep) for table in tables]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _states(encoder: PreTrainedModel, tokens: list[int]) -> Tensor:
    """(1, T, D) hidden states of one text, without dropout."""
    training = encoder.training
    encoder.eval()
    ids_1T = torch.tensor([tokens], device=next(encoder.parameters()).device)
    try:
        states: Tensor = encoder(input_ids=ids_1T, attention_mask=torch.ones_like(ids_1T))[0]
        return states
    finally:
        encoder.train(training)
