"""What a fresh encoder's folder holds: sizes, special tokens and vocabulary, down to the piece."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging

from unsee_dist.errors import UserError
from unsee_dist.model.fresh import ALPHABET, SPECIAL, FreshSize, train_tokenizer, write_fresh

TEXT = ["The cat sat. The cat ate.", "A cat, a hat: the Hat!", "Zoë sat"]
SIZE = FreshSize(vocabulary=64, width=12, layers=3, heads=4, max_tokens=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fresh")


def test_sizes_are_those_asked_for(folder: Path) -> None:
    parameters = write_fresh(folder / "far" / "away", TEXT, SIZE, 1)
    assert logging.is_progress_bar_enabled()  # as it was
    assert write_fresh(folder / "far" / "away", TEXT, SIZE, 1) == parameters  # over what is there
    config = AutoConfig.from_pretrained(folder / "far" / "away")
    tokenizer = AutoTokenizer.from_pretrained(folder / "far" / "away")
    encoder = AutoModel.from_pretrained(folder / "far" / "away", add_pooling_layer=False)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (12, 3, 4)
    assert (config.intermediate_size, config.max_position_embeddings) == (48, 20)
    assert config.vocab_size == len(tokenizer) <= 64
    assert config.pad_token_id == tokenizer.pad_token_id == 0
    words = config.vocab_size * 12 + 20 * 12 + 2 * 12 + 2 * 12
    layer = 4 * (12 * 12 + 12) + 2 * 12 * 48 + 48 + 12 + 4 * 12
    assert parameters == words + 3 * layer == sum(p.numel() for p in encoder.parameters())


def test_a_fresh_tokenizer_is_berts() -> None:
    tokenizer = train_tokenizer(TEXT, 64, 20)
    assert tokenizer.convert_ids_to_tokens(range(5)) == list(SPECIAL)
    names = (
        tokenizer.pad_token,
        tokenizer.unk_token,
        tokenizer.cls_token,
        tokenizer.sep_token,
        tokenizer.mask_token,
    )
    assert names == SPECIAL
    assert tokenizer.model_max_length == 20
    assert tokenizer.model_input_names == ["input_ids", "token_type_ids", "attention_mask"]
    one, two = tokenizer("the CAT"), tokenizer("the cat", "sat.")
    assert tokenizer.convert_ids_to_tokens(one["input_ids"]) == ["[CLS]", "the", "cat", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(two["input_ids"]) == [
        *("[CLS]", "the", "cat", "[SEP]"),
        *("sat", ".", "[SEP]"),
    ]
    assert two["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert tokenizer.decode(one["input_ids"], skip_special_tokens=True) == "the cat"
    assert tokenizer.tokenize("cats") == ["cat", "##s"]
    assert tokenizer.decode(tokenizer("cats")["input_ids"], skip_special_tokens=True) == "cats"
    assert tokenizer.tokenize("cat日") == ["cat", "[UNK]"]  # a character without a piece
    assert tokenizer.tokenize("zoë") == tokenizer.tokenize("zoe")


def test_the_vocabulary_is_pinned() -> None:
    """Special tokens, letters by frequency and then by code, the same inside words, merges by frequency."""
    tokenizer = train_tokenizer(TEXT, 64, 20)
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    counted = "taehc.s!,:oz"
    assert "".join(pieces[5 : 5 + len(counted)]) == counted
    assert pieces[5 + len(counted) : 5 + 2 * len(counted)] == [f"##{letter}" for letter in counted]
    assert pieces[5 + 2 * len(counted) :] == [
        "##at",
        "th",
        "cat",
        "the",
        "hat",
        "sat",
        "at",
        "zo",
        "ate",
        "zoe",
    ]


def test_a_vocabulary_is_not_larger_than_asked_for() -> None:
    assert len(train_tokenizer(TEXT, 32, 20)) == 32


@pytest.mark.parametrize("often", [1, 2])
def test_rare_characters_are_left_out_and_spaces_are_none(often: int) -> None:
    """The most frequent ALPHABET characters, of equally frequent ones the first; a word with another is unknown."""
    letters = [chr(0x4E00 + number) for number in range(ALPHABET + 20)]
    text = ["\t".join([*letters[:ALPHABET], " "])] * often + [" ".join(letters[ALPHABET:])]
    tokenizer = train_tokenizer(text, 2000, 20)
    pieces = set(tokenizer.get_vocab())
    assert {piece for piece in pieces if len(piece) == 1} == set(letters[:ALPHABET])
    assert tokenizer.tokenize(letters[0]) == [letters[0]]
    assert tokenizer.tokenize(letters[ALPHABET]) == ["[UNK]"]


@pytest.mark.parametrize("nothing", [[], ["", "  "]])
def test_no_text_says_what_to_give(nothing: list[str], folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        write_fresh(folder / "none", nothing, SIZE, 0)
    assert (
        str(caught.value) == "a tokenizer cannot be trained without a sentence. Give text with at least one."
    )


def test_training_and_writing_print_no_bar(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logging.enable_progress_bar()
    write_fresh(folder / "quiet", TEXT, SIZE, 0)
    assert logging.is_progress_bar_enabled()  # as before
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_what_is_written_names_its_own_limits(folder: Path) -> None:
    write_fresh(folder / "limits", TEXT, SIZE, 2)
    written = json.loads((folder / "limits" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert written["model_max_length"] == 20
    assert written["mask_token"] == "[MASK]"
