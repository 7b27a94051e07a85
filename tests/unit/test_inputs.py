"""What a run opens, and which rank looks at it."""

from contextlib import nullcontext

import pytest
import torch

from unsee_dist import inputs
from unsee_dist.config import load
from unsee_dist.distributed.world import World
from unsee_dist.errors import UserError


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
