"""A fresh encoder is a function of its sentences, size and seed, and an ordinary encoder for everything else."""

import errno
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from unsee_dist.data.stream.packing import pack
from unsee_dist.errors import UserError
from unsee_dist.model.encoder import encode, load_encoder, load_tokenizer, packs_exactly
from unsee_dist.model.fresh import FreshSize, bert_config, train_tokenizer, write_fresh

SIZE = FreshSize(vocabulary=300, width=16, layers=1, heads=2, max_tokens=24)


def made_up(seed: int, count: int = 200) -> list[str]:
    """Sentences over an invented lexicon in which many words are equally frequent: merges tie."""
    chance = random.Random(seed)
    lexicon = ["".join(chance.choices("aeioubcdfglmnrst", k=chance.randint(2, 9))) for _ in range(150)]
    return [
        " ".join(chance.choices(lexicon, k=chance.randint(3, 12))).capitalize() + "." for _ in range(count)
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_sentences_and_seed_give_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("\n".join(made_up(1)), encoding="utf-8")
    script = (
        "import sys; from pathlib import Path; from unsee_dist.model.fresh import FreshSize, write_fresh\n"
        "write_fresh(Path(sys.argv[1]), Path(sys.argv[2]).read_text().split('\\n'), FreshSize(300, 16, 1, 2, 24), 3)"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "there", tmp_path / "text"], check=True)
    write_fresh(tmp_path / "here", made_up(1), SIZE, 3)
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_another_seed_gives_other_weights_and_the_same_tokenizer(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_fresh(tmp_path / str(seed), made_up(1), SIZE, seed)
    zero, one = contents(tmp_path / "0"), contents(tmp_path / "1")
    differ = {name for name in zero if zero[name] != one[name]}
    assert differ == {"model.safetensors", ".unsee.json"}  # the second has the digests of the files


def test_making_one_leaves_the_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    write_fresh(tmp_path / "a", made_up(1), SIZE, 0)
    assert torch.equal(torch.rand(3), expected)


def test_a_full_disk_is_a_sentence_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(BertModel, "save_pretrained", full)
    with pytest.raises(UserError) as met:
        write_fresh(tmp_path / "a", made_up(1), SIZE, 0)
    assert str(tmp_path / "a") in str(met.value)
    assert str(met.value).endswith(". Make room, then write the same command again.")
    assert list(tmp_path.iterdir()) == []


def test_dropout_and_padding_are_those_that_are_asked_for() -> None:
    config = bert_config(SIZE, 3, 0.25)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob, config.pad_token_id) == (
        0.25,
        0.25,
        3,
    )
    assert bert_config(SIZE, 3).hidden_dropout_prob == BertConfig().hidden_dropout_prob


def test_training_can_load_it_and_pack_its_rows(tmp_path: Path) -> None:
    parameters = write_fresh(tmp_path / "a", made_up(1), SIZE, 0)
    encoder, tokenizer = load_encoder(str(tmp_path / "a"), None), load_tokenizer(str(tmp_path / "a"))
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    assert packs_exactly(encoder, "mean", 24)
    tokens = tokenizer(made_up(1)[:4], truncation=True, max_length=24)["input_ids"]
    micro_batch = pack(tokens, 24, tokenizer.pad_token_id, True, np.arange(4))
    assert encode(encoder, micro_batch, "mean", 1).shape == (4, 16)


def test_known_text_comes_back_and_has_no_unknown_piece() -> None:
    sentences = made_up(2)
    tokenizer = train_tokenizer(sentences, 300, 64)
    assert len(tokenizer) == 300
    for sentence in sentences[:50]:
        ids = tokenizer(sentence)["input_ids"]
        assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" .", ".") == sentence.lower()


def test_frequent_words_are_one_piece() -> None:
    tokenizer = train_tokenizer(made_up(2), 2000, 64)
    words = {word.strip(".").lower() for sentence in made_up(2) for word in sentence.split()}
    assert all(len(tokenizer.tokenize(word)) == 1 for word in words)


def test_no_sentence_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="without a sentence"):
        train_tokenizer([], 300, 64)
