"""A small BERT with random weights and a WordPiece tokenizer of its own, made from sentences alone.

For domains without a pretrained encoder, and for machines without a network. The same sentences, size and seed
give the same folder, byte for byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from unsee_dist.errors import UserError, writing
from unsee_dist.files.atomic import atomic_folder
from unsee_dist.model.encoder import quiet_transformers

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import BertConfig, PreTrainedTokenizerFast

ALPHABET = 300  # most frequent characters; a word with another one is [UNK]
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class FreshSize:
    """Word pieces, width, layers, heads and the longest input in word pieces. Feed-forward is 4 x width."""

    vocabulary: int = 8192
    width: int = 128
    layers: int = 2
    heads: int = 2
    max_tokens: int = 128


def write_fresh(folder: Path, sentences: Iterable[str], size: FreshSize, seed: int) -> int:
    """Write tokenizer and untrained encoder into `folder` as a Hugging Face model; returns its parameters.

    Raises UserError when there is no sentence.
    """
    from transformers import BertModel

    tokenizer = train_tokenizer(sentences, size.vocabulary, size.max_tokens)
    pad = tokenizer.pad_token_id
    assert isinstance(pad, int)
    config = bert_config(replace(size, vocabulary=len(tokenizer)), pad)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = BertModel(config, add_pooling_layer=False)
    remedy = "Make room, then write the same command again."
    with writing(folder, remedy), quiet_transformers(), atomic_folder(folder) as new:
        tokenizer.save_pretrained(new)
        encoder.save_pretrained(new)
    return sum(parameter.numel() for parameter in encoder.parameters())


def bert_config(size: FreshSize, pad_token_id: int, dropout: float | None = None) -> BertConfig:
    """A BERT of this size. dropout: of hidden states and attention, None = BERT's own."""
    from transformers import BertConfig

    config = BertConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        max_position_embeddings=size.max_tokens,
        pad_token_id=pad_token_id,
    )
    if dropout is not None:
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    return config


def train_tokenizer(sentences: Iterable[str], vocabulary: int, max_tokens: int) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer of at most `vocabulary` pieces, as BERT's: [CLS] sentence [SEP]."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    pieces = _pieces([normalizer.normalize_str(sentence) for sentence in sentences], splitter, vocabulary)
    tokenizer = Tokenizer(
        models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = (
        normalizer,
        splitter,
        decoders.WordPiece(),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, pieces.index(name)) for name in ("[CLS]", "[SEP]")],
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_tokens,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **dict(zip(names, SPECIAL, strict=True)),
    )


def _pieces(texts: list[str], splitter: PreTokenizer, vocabulary: int) -> list[str]:
    """The vocabulary, in the order of its ids.

    The trainer numbers the letters inside words in the order of a hash table, and breaks ties of merges by these
    numbers: given as special tokens they have fixed numbers, so that equal sentences give equal pieces.
    """
    from tokenizers import Tokenizer, models, trainers

    counts = Counter(chain.from_iterable(texts))
    letters = sorted(counts, key=lambda letter: (-counts[letter], letter))
    letters = [letter for letter in letters if not letter.isspace()][:ALPHABET]
    if not letters:
        raise UserError("a tokenizer cannot be trained without a sentence. Give text with at least one.")
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = splitter
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=[*SPECIAL, *letters, *(f"##{letter}" for letter in letters)],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    numbers = learner.get_vocab(with_added_tokens=False)
    return sorted(numbers, key=numbers.__getitem__)
