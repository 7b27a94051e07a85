"""Law 3: a checkpoint knows no layout. Saved under any ZeRO stage, it is the same state under any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from oracle import Case, Running, facts, running, weight_error
from processes import run

from unsee_dist.training.checkpoint import directory
from unsee_dist.training.checkpoint.saving import Saver
from unsee_dist.training.checkpoint.state import load

CASE = Case("corinfomax", both=True, dropout=0.1)
KINDS = ("master", "exp_avg", "exp_avg_sq", "ema")


def state(ours: Running) -> dict[str, torch.Tensor]:
    found = {f"{kind}/{name}": values for kind in KINDS for name, values in ours.whole(kind).items()}
    return found | {f"buffer/{n}": b.clone() for n, b in ours.engine.module.objective.named_buffers()}


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], label: object) -> None:
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        assert torch.equal(ours[name], values), (label, name)


def save(ours: Running, folder: Path, step: int, background: bool = False) -> None:
    saver = Saver(ours.engine.world, background)
    saver.save(folder, ours.engine, ours.target, facts(step), keep=2)
    saver.wait()


def restore(ours: Running, folder: Path) -> None:
    load(folder, directory.verify(folder), ours.engine, ours.target)


def save_all_stages(rank: int, size: int, folder: Path) -> None:
    for stage in range(4):
        ours = running(CASE, rank, size, stage)
        for step in (1, 2, 3):
            ours.train_step(step)
        save(ours, folder / f"stage-{stage}" / "step-00000003", 3, background=stage % 2 == 1)
        whole = state(ours)
        if rank == 0:
            torch.save(whole, folder / f"stage-{stage}.pt")


def load_all_pairs(rank: int, size: int, folder: Path) -> None:
    for ours_stage in range(4):
        for saved_stage in range(4):
            ours = running(CASE, rank, size, ours_stage)
            restore(ours, folder / f"stage-{saved_stage}" / "step-00000003")
            label = (saved_stage, ours_stage)
            assert_equal(state(ours), torch.load(folder / f"stage-{saved_stage}.pt"), label)
            assert ours.engine.updates() == 3, label
            assert weight_error(ours.published(), ours.whole("ema")) == 0.0, label


@pytest.mark.parametrize("size", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_every_stage_reads_what_every_stage_wrote(tmp_path: Path, size: int) -> None:
    run(save_all_stages, 2, tmp_path)
    run(load_all_pairs, size, tmp_path, timeout_s=300)


def resume_is_uninterrupted(rank: int, size: int, folder: Path) -> None:
    for stage in range(4):
        for precision in ("fp32", "bf16"):
            through = running(CASE, rank, size, stage, precision)
            place = folder / f"{stage}-{precision}" / "step-00000002"
            for step in range(1, 6):
                through.train_step(step)
                if step == 2:
                    save(through, place, 2)
            again = running(CASE, rank, size, stage, precision)
            again.train_step(9)  # dirt that the load must remove
            restore(again, place)
            for step in range(3, 6):
                again.train_step(step)
            assert_equal(state(again), state(through), (stage, precision))


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path) -> None:
    run(resume_is_uninterrupted, 2, tmp_path, timeout_s=300)
