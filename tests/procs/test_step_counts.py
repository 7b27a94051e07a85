"""A step has the collectives, bytes, waits and launches that are pinned, for every objective, ZeRO stage and number of ranks."""

from __future__ import annotations

from typing import Any

import pytest
import step_counts
import torch
import torch.distributed as dist
from processes import run
from step_counts import SIZES, Row, count, count_all, differences, read, rows


@pytest.mark.parametrize(
    "size", [size if size == 8 else pytest.param(size, marks=pytest.mark.slow) for size in SIZES]
)
def test_a_step_costs_what_is_pinned(size: int) -> None:
    version, pinned = read()
    wanted = [row for row in rows() if row.size == size]
    counted = run(count_all, 1, wanted, timeout_s=600)[0]
    found = differences({str(row): pinned[str(row)] for row in wanted}, counted, version)
    assert not found, (
        "\n".join(found)
        + "\nIf that is meant, write the new numbers: python tests/procs/step_counts.py --write"
    )


def test_the_table_has_every_row_and_no_objects() -> None:
    _, pinned = read()
    assert list(pinned) == [str(row) for row in rows()]
    assert {count["objects"] for count in pinned.values()} == {0}
    assert all(count["groups"] == bool(count["collectives"]) for count in pinned.values())


# Steps that cost more.

ROW = Row("vicreg", 8, 1)


def with_a_collective(engine: Any) -> None:
    reduce = engine.reduce

    def reduce_twice(values: torch.Tensor) -> Any:
        dist.all_reduce(values.clone())
        return reduce(values)

    engine.reduce = reduce_twice


def with_a_read(engine: Any) -> None:
    backward = engine.backward

    def read_first(loss: torch.Tensor) -> None:
        assert bool(torch.isfinite(loss))
        backward(loss)

    engine.backward = read_first


def with_an_upload(engine: Any) -> None:
    backward = engine.backward
    engine.backward = lambda loss: backward(loss * torch.tensor(1.0, device=loss.device))


def dearer_steps(_rank: int, _size: int) -> list[list[str]]:
    plain = {str(ROW): count(ROW)}
    version = torch.__version__.split("+")[0]
    changes = (None, with_a_collective, with_a_read, with_an_upload)
    return [differences(plain, {str(ROW): count(ROW, change)}, version) for change in changes]


def test_one_more_collective_read_or_upload_is_seen() -> None:
    same, collective, read_, upload = run(dearer_steps, 1)[0]
    assert same == []
    sentences = "\n".join(collective)
    assert (
        "vicreg, 8 ranks, zero 1: this step has 1 more collectives of kind all_reduce than pinned"
        in sentences
    )
    assert "more bytes than pinned" in sentences
    assert any("1 more host_reads than pinned" in line for line in read_)
    assert any("1 more uploads than pinned" in line for line in upload)
    assert any("test_step_counts.py" in line for line in read_), "the line that waits is named"


def test_other_versions_of_torch_are_held_to_all_but_the_launches() -> None:
    pinned = {"a": {"collectives": {"all_reduce": 1}, "host_reads": 1, "operations": 5}}
    counted = {"a": {"collectives": {"all_reduce": 1}, "host_reads": 2, "operations": 6}}
    assert len(differences(pinned, counted, "0.0")) == 1
    assert len(differences(pinned, counted, torch.__version__.split("+")[0])) == 2
    assert step_counts.TABLE.is_file()
