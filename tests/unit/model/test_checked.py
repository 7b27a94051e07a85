"""An encoder that one rank loads: what is loaded, and what torch draws after it. Several ranks: tests/procs/test_one_load.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unsee_dist.config.sections import ModelSettings
from unsee_dist.distributed.world import World
from unsee_dist.errors import UserError
from unsee_dist.model.checked import load_checked, load_once
from unsee_dist.model.fresh import FreshSize, write_fresh

TEXT = ["A cat sat on a mat.", "The dog ate the cat.", "Mats are flat."]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    folder: Path = tmp_path_factory.mktemp("encoder")
    write_fresh(folder, TEXT, FreshSize(60, 16, 1, 2, 24), 0)
    return ModelSettings(encoder=str(folder), max_tokens=24)


def test_one_rank_loads_what_it_would_load_alone(settings: ModelSettings) -> None:
    torch.manual_seed(5)
    alone = load_checked(settings)
    next_draw = torch.rand(3)
    torch.manual_seed(5)
    loaded = load_once(settings, World.alone())
    assert torch.equal(torch.rand(3), next_draw)
    weights = loaded.encoder.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in alone.encoder.state_dict().items())
    assert loaded.tokenizer.get_vocab() == alone.tokenizer.get_vocab()


def test_dropout_is_that_of_the_settings(settings: ModelSettings) -> None:
    config = load_checked(settings.model_copy(update={"dropout": 0.3})).encoder.config
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.3, 0.3)


def test_what_cannot_be_loaded_is_said(settings: ModelSettings) -> None:
    with pytest.raises(UserError, match=r"model\.max_tokens = 25 is more than"):
        load_once(settings.model_copy(update={"max_tokens": 25}), World.alone())
