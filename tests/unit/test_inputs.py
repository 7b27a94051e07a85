"""What a run opens, and which rank looks at it."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from unsee_dist import inputs
from unsee_dist.config import load
from unsee_dist.distributed.world import World
from unsee_dist.errors import UserError
from unsee_dist.model.encoder import load_encoder
from unsee_dist.model.fresh import FreshSize, write_fresh


@pytest.mark.parametrize(
    "opening", [inputs.open_inputs, inputs.tokenise_ahead]
)  # of an encoder that is loaded
def test_one_rank_looks_at_the_sizes_of_all_shards(monkeypatch, opening):
    """Its error is that of all: both are called where errors are shared."""
    asked = []

    def opened(_, check):
        asked.append(check)
        raise UserError("no further")

    monkeypatch.setattr(inputs, "open_corpus", opened)
    monkeypatch.setattr(inputs, "refuse_other_settings", lambda *_: None)
    monkeypatch.setattr(inputs, "share_errors", lambda _: nullcontext())
    config = load("unsee-vicreg", ["data.tokenise=true"])
    for rank in range(3):
        with pytest.raises(UserError, match="no further"):
            opening(config, World(rank, 3, rank, torch.device("cpu")), None)
    assert asked == [True, False, False]


def test_the_weight_of_barlow_twins_follows_batch_and_width(tmp_path):
    """A number is the user's own; auto is that of the batch over ALL ranks, as large as its authors' at most."""
    write_fresh(tmp_path / "encoder", ["the old river follows a garden"], FreshSize(width=16), 7)
    encoder = load_encoder(str(tmp_path / "encoder"), None)

    def weight(*settings, ranks=1):
        config = load("recipe-barlow", ["projector.width=2", *settings])
        world = World(0, ranks, 0, torch.device("cpu"))
        return inputs.assemble(encoder, config, world).objective.weight, inputs.weight_of_auto(config, 768)

    assert weight("train.batch=32") == (
        0.0051,
        "objective.weight = auto: 5.4e-05, for train.batch = 32 and embeddings of 768",
    )
    assert weight("objective.weight=0.25") == (0.25, None)
    wide = FreshSize(width=128)
    write_fresh(tmp_path / "wide", ["the old river follows a garden"], wide, 7)
    encoder = load_encoder(str(tmp_path / "wide"), None)
    assert weight("train.batch=32", ranks=4)[0] == 32 / 128**2
    assert weight("train.batch=64")[0] == 64 / 128**2
    assert weight("train.batch=512")[0] == 0.0051


def test_a_corpus_of_which_nothing_can_be_read_is_not_called_small(monkeypatch):
    """data.on_damage = skip leaves out what is damaged: here all of it."""
    monkeypatch.setattr(inputs, "load_sets", lambda _: {})
    corpus = SimpleNamespace(sentences=300, path="data/mine")
    stream = SimpleNamespace(corpus=corpus, sample=lambda _: [])
    config = load("unsee-vicreg", ["data.on_damage=skip"])
    with pytest.raises(UserError, match=r"fewer than 2 of the 300 sentences of data/mine can be read"):
        inputs.build_development(config, stream, World(0, 1, 0, torch.device("cpu")))
