"""The weights that best/ and final/ are written from: whole on rank 0, whichever rank holds which part."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from oracle import Case, running
from processes import run

from unsee_dist.training.checkpoint.state import full_weights


def differing(rank: int, size: int, stage: int, exchanged: bool) -> list[str]:
    """Names of what differs from the masters after three steps. `exchanged` False: ranks keep their parts to themselves."""
    ours = running(Case("vicreg", both=True, dropout=0.1), rank, size, stage)
    for step in (1, 2, 3):
        ours.train_step(step)
    masters = ours.whole("master")
    if exchanged:
        weights = full_weights(ours.engine, "online")
    else:
        with patch.object(dist, "all_reduce"):
            weights = full_weights(ours.engine, "online")
    if rank > 0:
        assert weights == {}
        return []
    named = {f"online.{name}": weight for name, weight in weights.items()}
    wanted = {name for name in masters if name.startswith("online.")}
    assert named.keys() == wanted, (sorted(named.keys() ^ wanted), sorted(masters)[:3])
    return [
        name for name, weight in named.items() if not torch.equal(weight.flatten(), masters[name].flatten())
    ]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_rank_0_writes_the_whole_masters(size: int, stage: int) -> None:
    assert run(differing, size, stage, True)[0] == []


@pytest.mark.parametrize("stage", [1, 3])
def test_parts_that_ranks_keep_to_themselves_are_missed(stage: int) -> None:
    """Negative control."""
    assert run(differing, 2, stage, False)[0]
