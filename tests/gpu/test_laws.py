"""The laws of tests/procs with their tensors on a GPU: one rank over nccl, and two and three that share the card over gloo
(nccl refuses two ranks on one card); with two cards the same over nccl."""

from __future__ import annotations

from pathlib import Path

import pytest
import test_checkpoint
import test_compiled
import test_engine
import test_precision
import test_target
from oracle import Case
from processes import run

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(540)]
SHARED = [2, 3]
SIMCSE = Case("simcse", ema=False, both=True, projector="tanh")


@pytest.mark.parametrize("dropout", test_engine.DROPOUTS)
def test_one_rank_equals_plain_torch(device: str, dropout: float) -> None:
    print("\n".join(run(test_engine.equals_one_process, 1, dropout, timeout_s=500, device=device)[0]))


@pytest.mark.parametrize("micro_batch", [None, 5])
def test_a_compiled_encoder_equals_plain_torch(device: str, micro_batch: int | None) -> None:
    case = Case("vicreg", dropout=0.1)
    worker = test_compiled.equals_one_process
    print(run(worker, 1, case, 0, micro_batch, timeout_s=500, device=device))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_equals_plain_torch(device: str, precision: str) -> None:
    print("\n".join(run(test_precision.equals_plain_torch, 1, precision, timeout_s=500, device=device)[0]))


@pytest.mark.parametrize("ranks", SHARED)
def test_ranks_that_share_a_card_equal_plain_torch(device: str, ranks: int) -> None:
    print("\n".join(run(test_engine.equals_one_process, ranks, 0.1, timeout_s=500, device=device)[0]))


@pytest.mark.parametrize("ranks", [1, 2])
def test_any_cut_into_pieces_and_rows_is_the_same(device: str, ranks: int) -> None:
    few = [Case("corinfomax"), SIMCSE]
    for packed in (True, False):
        run(test_engine.any_cut_is_the_same, ranks, 0.1, packed, few, (1, 3), timeout_s=500, device=device)


@pytest.mark.parametrize("ranks", [1, 2])
def test_recomputed_pieces_meet_their_own_masks(device: str, ranks: int) -> None:
    run(test_engine.pieces_keep_their_masks, ranks, timeout_s=500, device=device)


def test_known_wrong_ways_fail_the_law(device: str) -> None:
    for label, error in run(test_engine.wrong_ways, 2, timeout_s=500, device=device)[0].items():
        assert error > 1e-3, f"{label} passed with {error:.1e}"
    assert run(test_engine.masks_by_rank, 2, timeout_s=500, device=device)[0] > 1e-2


def test_a_nan_on_one_rank_moves_nothing_anywhere(device: str) -> None:
    run(test_engine.poisoned, 2, timeout_s=500, device=device)


def test_every_stage_reads_what_every_stage_wrote(device: str, tmp_path: Path) -> None:
    run(test_checkpoint.save_all_stages, 2, tmp_path, timeout_s=500, device=device)
    run(test_checkpoint.load_all_pairs, 3, tmp_path, timeout_s=500, device=device)


@pytest.mark.parametrize("ranks", [1, 2])
def test_resumed_equals_uninterrupted_bit_for_bit(device: str, ranks: int, tmp_path: Path) -> None:
    run(test_checkpoint.resume_is_uninterrupted, ranks, tmp_path, timeout_s=500, device=device)


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_loss_scale_of_fp16_is_part_of_a_checkpoint(device: str, ranks: int, tmp_path: Path) -> None:
    run(test_precision.resumes_with_its_scale, ranks, tmp_path, timeout_s=500, device=device)


def test_ema_equals_its_closed_form_in_bf16_engines(device: str) -> None:
    run(test_target.follows_the_masters, 2, (0, 1, 2, 3), 20, timeout_s=500, device=device)


@pytest.mark.usefixtures("two_cards")
def test_two_cards_equal_plain_torch_over_nccl(device: str) -> None:
    print("\n".join(run(test_engine.equals_one_process, 2, 0.1, timeout_s=500, device=device)[0]))
    cases = [Case("corinfomax"), SIMCSE]
    for packed in (True, False):
        run(test_engine.any_cut_is_the_same, 2, 0.1, packed, cases, timeout_s=500, device=device)
    run(test_engine.poisoned, 2, timeout_s=500, device=device)
