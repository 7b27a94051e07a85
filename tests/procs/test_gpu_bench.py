"""The cases of `unsee bench --only gpu` on a CPU, in tiny shapes: every row has every number, and they agree."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run

from unsee_dist.bench import gpu_peer, gpu_step, scaling
from unsee_dist.bench.gpu_step import CASES, HOST, PARTS, Case, build, measure
from unsee_dist.bench.table import BenchRow
from unsee_dist.bench.timing import Effort
from unsee_dist.config import load
from unsee_dist.distributed.process_group import join_world
from unsee_dist.distributed.world import World
from unsee_dist.model.dropout import masks_of
from unsee_dist.model.fresh import FreshSize
from unsee_dist.model.unsee import Unsee

pytestmark = pytest.mark.slow

TINY = FreshSize(vocabulary=60, width=32, layers=2, heads=2, max_tokens=32)
EFFORT = Effort(warm_up=1, least=2, most=3, seconds=0.1, stopped=1, batches=2, until_applied=3)
CEILINGS = {"bf16": 1e9, "fp32": 1e9}
SHORT = ["model.max_tokens=32", "projector.width=2"]


def tiny(case: Case) -> Case:
    return replace(case, batch=min(case.batch, 16), micro_batch=4 if case.micro_batch else None)


def row_of(case: Case, world: World, effort: Effort = EFFORT) -> BenchRow:
    return measure(case, case.config("unsee-vicreg", SHORT), TINY, world, CEILINGS, effort)


def all_rows(_rank: int, _size: int) -> tuple[list[BenchRow], int]:
    """The row of every case, and how many models outlived their case (ZeRO-3's is the last)."""
    world, rows = join_world(), []
    for case in CASES:
        if case.label == "ZeRO-3":
            gc.collect()
            left = sum(isinstance(each, Unsee) for each in gc.get_objects())
        rows.append(row_of(tiny(case), world))
    return rows, left


@pytest.fixture(scope="module")
def rows() -> tuple[dict[str, BenchRow], int]:
    ((found, left),) = run(all_rows, 1, timeout_s=400)
    return {row["case"]: row for row in found}, left


def test_every_case_has_every_number_and_they_agree(rows: tuple[dict[str, BenchRow], int]) -> None:
    by_case = rows[0]
    assert list(by_case) == [case.label for case in CASES]
    for label, row in by_case.items():
        if label == "precision fp16":  # refused on a CPU: a row with the reason
            assert "needs a GPU" in row["error"]
            assert "step_ms" not in row
            continue
        assert row["skipped"] == 0, label
        assert EFFORT.least <= row["steps"] <= EFFORT.most
        assert row["tokens_per_s"] == pytest.approx(1000 * row["tokens"] / row["step_ms"])
        assert row["sentences_per_s"] == pytest.approx(1000 * row["batch"] / row["step_ms"])
        assert sum(row["ms"][part] for part in PARTS) == pytest.approx(row["ms"]["step"])
        assert sum(row["host"][part] for part in HOST) == pytest.approx(row["host"]["step"])
        assert row["host_ms"] == pytest.approx(row["host"]["step"] - row["host"]["finish"])
        assert 0 < row["host_ms"] <= row["slowest_ms"]
        assert 0 <= row["padding"] < 1
        assert row["launches"] > 100
        assert row["host_reads"] > 0
        assert len(row["longest"]) == 12
        assert row["kernel_ms"] > 0
        assert row["peak_mib"] > 0
        for part in ("online", "objective", "backward", "finish", "optimizer"):
            assert row["ms"][part] > 0, (label, part)
        assert (row["ms"]["target"] > 0) == (not label.startswith("simcse"))


def test_the_share_of_the_ceiling_is_that_of_the_weights_and_tokens(
    rows: tuple[dict[str, BenchRow], int],
) -> None:
    row = rows[0]["batch 1,024"]
    encoder = 2 * (4 * 32 * 32 + 2 * 32 * 128)  # two layers: q, k, v, o, and the two of feed-forward
    inner = 2 * 32
    projector = (32 * inner + inner) + 2 * inner + (inner * inner + inner) + (inner * 32 + 32)
    # 2 an operand; two views; forward, twice that backward, and the target's forward
    work = 2 * 2 * (4 * encoder * row["tokens"] + 3 * projector * row["batch"])
    assert row["utilisation"] == pytest.approx(work / (row["step_ms"] / 1000) / 1e9)


def test_cases_differ_as_they_say(rows: tuple[dict[str, BenchRow], int]) -> None:
    by_case = rows[0]
    assert by_case["data.pack=false"]["padding"] > by_case["batch 1,024"]["padding"]
    pieces = by_case["batch 16,384 in micro_batches of 512"]
    assert pieces["launches"] > 2 * by_case["batch 1,024"]["launches"]
    assert by_case["model.dropout=0"]["launches"] < by_case["batch 1,024"]["launches"]
    assert by_case["precision fp32"]["precision"] == "fp32"


def test_a_case_leaves_nothing_to_the_next(rows: tuple[dict[str, BenchRow], int]) -> None:
    assert rows[1] == 0


def dropouts(_rank: int, _size: int) -> list[tuple[bool, bool]]:
    found = []
    for case in (Case("exact"), Case("torch", exact_masks=False)):
        small = tiny(case)
        built = build(small, small.config("unsee-vicreg", SHORT), TINY, join_world(), 1)
        keys = built.batches[0].micro_batches[0].keys
        found.append((masks_of(built.engine.module.online) is not None, keys is not None))
        built.engine.engine.destroy()
    return found


def test_torchs_dropout_has_neither_masks_nor_keys() -> None:
    assert run(dropouts, 1) == [[(True, True), (False, False)]]


def out_of_memory_then_on(_rank: int, _size: int) -> list[BenchRow]:
    world, real = join_world(), gpu_step.train_step

    def no_room(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")

    gpu_step.train_step = no_room  # type: ignore[assignment]
    failed = row_of(tiny(Case("large")), world)
    gpu_step.train_step = real
    return [failed, row_of(tiny(Case("next")), world)]


def test_out_of_memory_is_a_row_and_the_next_case_is_measured() -> None:
    ((failed, after),) = run(out_of_memory_then_on, 1)
    assert failed["error"] == "CUDA out of memory. Tried to allocate 20.00 GiB."
    assert "error" not in after
    assert after["step_ms"] > 0


def scaled(rank: int, _size: int) -> BenchRow:
    settings = load("unsee-vicreg", [*SHORT, "parallel.precision=fp32", "train.batch=16"])
    row = scaling.measure(settings, TINY, join_world(), steps=2)
    return row | {"rank": rank}


def test_weak_scaling_counts_the_sentences_of_all_ranks() -> None:
    for row in run(scaled, 2):
        assert (row["ranks"], row["batch"], row["threads"]) == (2, 16, 1)
        assert row["sentences_per_s"] == pytest.approx(1000 * 16 / row["step_ms"])


def peer(_rank: int, _size: int, folder: Path) -> tuple[BenchRow, bool]:
    world = join_world()
    settings = load("unsee-vicreg", [*SHORT, "train.batch=16"])
    model = gpu_peer.make_model(folder, TINY, settings, world.device)
    before = [weight.detach().clone() for weight in model.parameters()]
    row = gpu_peer.measure(model, settings, TINY.vocabulary, world, 1e9, EFFORT)
    moved = any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    return row, moved


def test_the_peer_trains_on_the_same_shapes_and_its_numbers_agree(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    ((row, moved),) = run(peer, 1, tmp_path)
    assert moved
    assert row["tokens_per_s"] == pytest.approx(1000 * row["tokens"] / row["step_ms"])
    assert row["sentences_per_s"] == pytest.approx(1000 * 16 / row["step_ms"])
    encoder = 2 * (4 * 32 * 32 + 2 * 32 * 128)
    assert row["utilisation"] == pytest.approx(12 * encoder * row["tokens"] / (row["step_ms"] / 1000) / 1e9)
    assert all(row[name] > 0 for name in ("host_ms", "launches", "kernel_ms", "peak_mib"))
