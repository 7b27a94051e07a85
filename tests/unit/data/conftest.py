"""Sentences by a rule, a tokenizer made of them, and a corpus of three short blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from unsee_dist.data import Shards
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare

SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


def write_sentence(number: int) -> str:
    """Eight to twelve words by a rule; the first three spell the number (below 343,000) in base 70."""
    digits = [number // 70**k % 70 for k in range(3)]
    filler = [(number * (2 * k + 3) + number // 70 * (k + 1)) % 70 for k in range(5 + number % 5)]
    return " ".join(SYLLABLES[i] for i in digits + filler).capitalize() + "."


@pytest.fixture(scope="session")
def make_sentence() -> Callable[[int], str]:
    return write_sentence


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,500 sentences in a file: two whole blocks and a short one."""
    path = tmp_path_factory.mktemp("text") / "rule.txt"
    path.write_text("\n".join(map(write_sentence, range(2500))) + "\n")
    return path


@pytest.fixture(scope="session")
def corpus(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """The same, prepared, in two shards."""
    out = tmp_path_factory.mktemp("corpus") / "prepared"
    prepare([str(text)], out, PrepareSettings(seed=5, shard_sentences=2048))
    return Shards(out)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", *SYLLABLES]
    model = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    model.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
