"""What `unsee bench --only scale` counts and projects: few collectives, one host read, and bytes as the projection has them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from processes import run
from rich.console import Console

from unsee_dist.bench import scale

COUNTED = [(name, 8, stage) for name in scale.PRESETS for stage in (0, 1)] + [
    ("vicreg", 1, 1),
    ("vicreg", 1024, 1),
    ("vicreg", 8, 3),
]


def counted(_rank: int, _size: int) -> list[tuple[dict[str, Any], scale.ModelSize]]:
    """Each row, and the size of its model."""
    import torch

    from unsee_dist.distributed.world import World

    alone, found = World(0, 1, 0, torch.device("cpu")), []
    for name, ranks, stage in COUNTED:
        size = scale.size_of(
            scale.small_model(scale.small_config(name, 1, 0), alone), sentences=scale.OF_A_RANK
        )
        found.append((scale.count(name, ranks, stage), size))
    return found


@pytest.fixture(scope="module")
def table() -> list[tuple[dict[str, Any], scale.ModelSize]]:
    return run(counted, 1, timeout_s=500)[0]


def test_a_step_has_few_collectives_one_read_and_no_objects(table: Any) -> None:
    for row, _ in table:
        assert row["zero"] == 3 or row["collectives"] <= 8, row
        assert (row["host_reads"], row["object_collectives"]) == (1, 0), row
        assert row["operations"] > 100


def test_the_bytes_of_the_projection_are_those_that_are_counted(table: Any) -> None:
    """Alignment is 2 bytes of a number and 64 of a part: little, but of this small model 3% at 1,024 ranks."""
    for row, size in table:
        if row["zero"] < 3 and row["ranks"] < 1024:
            expected = scale.sent(row["objective"], row["ranks"], row["zero"], size)
            assert row["bytes"] == pytest.approx(expected, rel=0.02), (row, expected)
    (row, size) = table[0]
    assert row["bytes"] != pytest.approx(scale.sent("byol", 8, 1, size), rel=0.02), (
        "another objective and stage"
    )


def test_the_projection_falls_with_the_ranks(table: Any) -> None:
    rows = [row for row, _ in table]
    projected = scale.projection(rows)
    assert len(projected) == len(rows) - 1, "stage 3 is not projected"
    by_ranks = {
        row["ranks"]: row["efficiency"]
        for row in projected
        if (row["objective"], row["zero"]) == ("vicreg", 1)
    }
    assert by_ranks[1] == pytest.approx(1, abs=1e-9)
    assert all(before > after for before, after in pairwise(by_ranks[ranks] for ranks in (1, 8, 1024)))
    console = Console(width=200)
    with console.capture() as shown:
        for page in scale.pages(rows, projected):
            console.print(page)
    assert "1,024, vicreg, 1" in shown.get()


def test_the_projections_models_are_those_of_the_recipe() -> None:
    """BERT-base has 109M weights without its pooler, a block of the projector 71M beside it."""
    size = scale.base_size("vicreg")
    assert (round(size.followed / 1e6), round((size.weights - size.followed) / 1e6)) == (109, 71)
    assert (size.width, size.hidden) == (768, 7680)
    assert scale.base_size("simcse").followed == 0
