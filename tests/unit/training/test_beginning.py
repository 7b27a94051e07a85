"""The first line of a run has what trains on what, on a terminal of 80 columns, too."""

from __future__ import annotations

import pytest

from unsee_dist.config import load
from unsee_dist.training.beginning import first_line

CPU, H200 = "CPU", "NVIDIA H200"


def test_all_of_it_is_in_one_line() -> None:
    config = load("base", ["data.shards=data/wiki", "train.batch=64", "parallel.zero=2"])
    line = first_line(config, [("a", H200), ("a", H200), ("b", H200), ("b", H200)], 1_000_000)
    assert line == (
        "4 ranks on 2 hosts from a on | 4 x NVIDIA H200 | bf16 ZeRO-2 | data/wiki: 1,000,000 sentences | batch 64, 16 a rank"
    )
    assert first_line(config, [("a", CPU)], 3).startswith("1 rank on 1 host of a | CPU | bf16")
    mixed = first_line(config, [("a", CPU), ("b", H200)], 3)
    assert "1 x CPU + 1 x NVIDIA H200" in mixed


@pytest.mark.parametrize("ranks", [1, 8, 64])
@pytest.mark.parametrize("shards", ["c", "/home/somebody/projects/tickets/data/wiki-and-mine"])
def test_a_narrow_terminal_has_every_fact(ranks: int, shards: str) -> None:
    config = load("base", [f"data.shards={shards}", "parallel.precision=fp32", "train.batch=512"])
    line = first_line(config, [("node-0001", CPU)] * ranks, 1_000_000, 80)
    assert len(line) <= 80
    for fact in (
        f"{ranks} rank",
        "1 host",
        "CPU",
        "fp32",
        f"ZeRO-{1 if ranks > 1 else 0}",
        shards[-4:],
        "1,000,000",
        "batch 512",
    ):
        assert fact in line
