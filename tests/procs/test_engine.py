"""Law 2, one loss: N ranks under any ZeRO stage equal one plain process on the whole batch. And its known violations.

Different data on every rank, ten steps (some wrong ways are right on the first), fp32, without and with dropout: to rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
from oracle import Case, Oracle, Running, gradient_error, oracle, running, weight_error
from processes import run

from unsee_dist.data.stream.packing import MicroBatch, pack
from unsee_dist.data.stream.stream import Batch
from unsee_dist.distributed.reduce import Reduction
from unsee_dist.errors import UserError
from unsee_dist.objectives import OBJECTIVES
from unsee_dist.training.step import StepResult, train_step

STEPS = 10
CASES = [Case(name) for name in OBJECTIVES if name != "simcse"] + [
    Case("simcse", ema=False, both=True, projector="tanh"),
    Case("vicreg", ema=False, both=True),
    Case("vicreg", both=True),
]


def compare(
    case: Case, truth: Oracle, rank: int, size: int, stage: int, **how: object
) -> tuple[float, float, float]:
    """(loss and norm error, gradient error, weight error) of the oracle's steps against it."""
    ours = running(case, rank, size, stage)
    value_error, moment_error = 0.0, 0.0
    for step in range(1, len(truth.losses) + 1):
        result = ours.train_step(step, **how)  # type: ignore[arg-type]
        assert result.applied
        value_error = max(
            value_error,
            abs(result.loss / truth.losses[step - 1] - 1),
            abs(result.grad_norm / truth.norms[step - 1] - 1),
        )
        if step <= 3:
            moment_error = max(moment_error, gradient_error(ours.whole("exp_avg"), truth.moments[step - 1]))
    error = weight_error(ours.whole("master"), truth.weights)
    if case.ema:
        error = max(error, weight_error(ours.whole("ema"), truth.ema))
        error = max(error, weight_error(ours.published(), truth.ema))
    return value_error, moment_error, error


DROPOUTS = (0.0, 0.1)


def equals_one_process(rank: int, size: int, dropout: float) -> list[str]:
    lines = []
    for case in (replace(case, dropout=dropout) for case in CASES):
        truth = oracle(case, STEPS)
        for stage in range(4):
            values, gradient, weights = compare(case, truth, rank, size, stage)
            lines.append(
                f"{case.objective} ema={case.ema} stage {stage}: {values:.1e} {gradient:.1e} {weights:.1e}"
            )
            assert values < 1e-5, lines[-1]
            assert gradient < 1e-5, lines[-1]
            assert weights < 2e-5, lines[-1]
    return lines


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("dropout", "size"),
    [
        (0.1, 2),  # the method; the others are this law again
        *(pytest.param(0.1, size, marks=SLOW) for size in (1, 3, 4)),
        *(pytest.param(0.0, size, marks=SLOW) for size in (1, 2, 3, 4)),
    ],
)
def test_ranks_and_stages_equal_one_process(size: int, dropout: float) -> None:
    print("\n".join(run(equals_one_process, size, dropout, timeout_s=500)[0]))


def masks_by_rank(rank: int, size: int) -> float:
    """The known wrong way: each rank draws the masks of its own places."""
    case = Case("vicreg", dropout=0.1)
    return max(compare(case, oracle(case, 3), rank, size, 0, by_rank=True)[:2])


def test_masks_of_a_rank_fail_the_law() -> None:
    assert run(masks_by_rank, 2)[0] > 1e-2


# (packed, micro_batch): sentences of all lengths in a row or one; whole, even and uneven cuts, one sentence at a time
CUTS = (None, 8, 5, 1)  # sentences of a micro-batch; of 3 and 4 ranks a part of 24 is 8 and 6


def any_cut_is_the_same(
    rank: int,
    size: int,
    dropout: float,
    packed: bool,
    cases: Sequence[Case] = CASES,
    stages: Sequence[int] = range(4),
) -> None:
    """Each cut under one stage, the next one in turn; another for each number of ranks."""
    for case in (replace(case, dropout=dropout) for case in cases):
        truth = oracle(case, STEPS)
        for place, micro_batch in enumerate(CUTS):
            stage = stages[(place + size) % len(stages)]
            errors = compare(case, truth, rank, size, stage, micro_batch=micro_batch, packed=packed)
            assert max(errors[:2]) < 1e-5, (case, stage, packed, micro_batch, errors)
            assert errors[2] < 2e-5, (case, stage, packed, micro_batch, errors)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "shift"), [(1, 0), *itertools.product((2, 3, 4), range(4))])
@pytest.mark.parametrize("packed", [True, False])
def test_any_cut_into_pieces_and_rows_is_the_same(size: int, shift: int, packed: bool) -> None:
    """Over the shifts, each cut meets each stage on each number of ranks; one rank alone trains at stage 0."""
    stages = [0] if size == 1 else [(place + shift) % 4 for place in range(4)]
    run(any_cut_is_the_same, size, 0.1, packed, CASES, stages, timeout_s=500)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("packed", [True, False])
def test_any_cut_without_dropout(size: int, packed: bool) -> None:
    run(any_cut_is_the_same, size, 0.0, packed, timeout_s=500)


def losses_in_bf16(
    rank: int, size: int, layouts: Sequence[tuple[int, dict[str, object]]]
) -> list[list[float]]:
    """By layout (stage, how): the losses of ten steps of VICReg under dropout."""
    curves = []
    for stage, how in layouts:
        ours = running(Case("vicreg", dropout=0.1), rank, size, stage, "bf16")
        curves.append([ours.train_step(step, **how).loss for step in range(1, STEPS + 1)])  # type: ignore[arg-type]
    return curves


@pytest.mark.slow
def test_in_bf16_losses_differ_by_its_rounding_alone() -> None:
    """The masks do not differ at all: those of places in a rank's part are seen in bf16, too."""
    [truth] = run(losses_in_bf16, 1, [(0, {})])[0]
    layouts = [(0, {}), (1, {"micro_batch": 5}), (2, {"packed": False}), (3, {}), (0, {"by_rank": True})]
    *errors, by_rank = (
        max(abs(loss / true - 1) for loss, true in zip(curve, truth, strict=True))
        for curve in run(losses_in_bf16, 2, layouts)[0]
    )
    print(errors, by_rank)
    assert max(errors) < 2**-8
    assert by_rank > 2 * 2**-8


def pieces_keep_their_masks(rank: int, size: int) -> None:
    """Recomputing a micro_batch in backward must meet the masks of its forward, bit for bit."""
    import unsee_dist.model.unsee as unsee

    case = Case("vicreg", dropout=0.1)
    recompute = unsee.checkpoint
    for stage in range(4):
        ends = []
        for checkpoint in (recompute, lambda function, *inputs, **_: function(*inputs)):
            unsee.checkpoint = checkpoint
            ours = running(case, rank, size, stage)
            losses = [ours.train_step(step, micro_batch=3).loss for step in range(1, 5)]
            ends.append((losses, ours.whole("master")))
        unsee.checkpoint = recompute
        assert ends[0][0] == ends[1][0], (stage, ends[0][0], ends[1][0])
        assert weight_error(ends[0][1], ends[1][1]) == 0.0, stage


def test_recomputed_pieces_meet_their_own_dropout_masks() -> None:
    run(pieces_keep_their_masks, 2)


class PlainAllReduce(Reduction):
    """The known wrong way: invisible to autograd, so the gradient is 1/N of the true one."""

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return x + (total - x).detach()

    def sum_gradient(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient

    shared_gradient = sum_gradient


def wrong_ways(rank: int, size: int) -> dict[str, float]:
    errors = {}
    for name in ("barlow_twins", "vicreg", "corinfomax"):
        case = Case(name)
        truth = oracle(case, 3)
        wrong = {
            "plain all_reduce in the loss": {"objective_reduction": PlainAllReduce(rank, size)},
            "statistics of one rank": {"objective_reduction": Reduction()},
            "BatchNorm of one rank": {"projector_reduction": Reduction()},
        }
        for label, how in wrong.items():
            ours = running(case, rank, size, 2, **how)  # type: ignore[arg-type]
            gap = 0.0
            for step in range(1, 4):
                result = ours.train_step(step)
                gap = max(gap, abs(result.grad_norm / truth.norms[step - 1] - 1))
            errors[f"{name}: {label}"] = max(gap, gradient_error(ours.whole("exp_avg"), truth.moments[2]))
    return errors


def test_known_wrong_ways_fail_the_law() -> None:
    for label, error in run(wrong_ways, 2)[0].items():
        assert error > 1e-3, f"{label} passed with {error:.1e}"


def wrong_pieces(_rank: int, _size: int) -> dict[str, float]:
    """Ways to cut a batch that are another loss: the error of the gradient each of them makes."""
    from oracle import BATCH, batch, model

    import unsee_dist.model.encoder as encoder

    module = model(Case("vicreg"), Reduction(), Reduction())
    names = dict(module.named_parameters())

    def gradient(micro_batches: Sequence[MicroBatch], scale: float = 1.0) -> dict[str, torch.Tensor]:
        (module(micro_batches)[0] * scale).backward()
        return {n: p.grad.flatten().clone() for n, p in names.items() if p.grad is not None}

    truth = gradient(batch(1, packed=False).micro_batches)
    errors = {}

    module.zero_grad()
    for micro_batch in batch(1, micro_batch=6, packed=False).micro_batches:
        accumulated = gradient((micro_batch,), 6 / BATCH)
    errors["gradient accumulation"] = gradient_error(accumulated, truth)

    module.zero_grad()
    whole = type(module.projector).forward
    module.projector.forward = lambda z: torch.cat(
        [whole(module.projector, part) for part in z.split(6, 1)], 1
    )
    errors["BatchNorm of one micro_batch"] = gradient_error(
        gradient(batch(1, packed=False).micro_batches), truth
    )
    del module.projector.forward

    module.zero_grad()
    masked = encoder.attention_mask
    encoder.attention_mask = lambda segments: torch.ones_like(masked(segments))
    errors["packing without a mask"] = gradient_error(gradient(batch(1, packed=True).micro_batches), truth)
    encoder.attention_mask = masked

    module.zero_grad()
    assert gradient_error(gradient(batch(1, micro_batch=6, packed=True).micro_batches), truth) < 1e-5
    return errors


def test_wrong_ways_to_cut_a_batch_fail_the_law() -> None:
    errors = run(wrong_pieces, 1)[0]
    assert len(errors) == 3
    for label, error in errors.items():
        assert error > 1e-2, f"{label} passed with {error:.1e}"


def memory_runs_out(_rank: int, _size: int) -> tuple[str, str]:
    """A real allocation that fails, with the address space of this process held tight."""
    import resource

    ours = running(Case("vicreg"), 0, 1, 0)
    assert ours.train_step(1).applied  # what is allocated once is there
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    messages = []
    for sentences, length in ((4000, 20), (1, 24)):
        tokens = [[7] * length] * sentences
        if sentences == 1:  # one sentence too large: rows of padding stand for its length
            grid = pack([[7] * length] * 4000, 24, 0, False)
            only = torch.where(grid.segment_ids == 0, 0, -1)
            micro_batch = MicroBatch(
                grid.input_ids, grid.position_ids, only, 1, torch.zeros(1, dtype=torch.int64)
            )
        else:
            micro_batch = pack(tokens, 24, 0, False, np.arange(sentences))
        resource.setrlimit(resource.RLIMIT_AS, (held + 2**26, resource.RLIM_INFINITY))
        try:
            train_step(ours.engine, ours.target, Batch(3, (), (micro_batch,), 0), 1e-3, 0.9)
        except ValueError as error:
            messages.append(str(error))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return tuple(messages)


def test_memory_that_runs_out_says_which_micro_batch_to_try() -> None:
    many, one = run(memory_runs_out, 1)[0]
    assert "train.micro_batch = 4000 does not fit" in many
    assert "Write train.micro_batch=2000: a step then needs less at once." in many
    assert "lower model.max_tokens" in one


def memory_runs_out_after_the_backward(_rank: int, _size: int) -> list[str]:
    """An error of torch's own from each place where a step asks for memory once activations are gone."""
    sentences = []
    for place in ("reduce", "step"):
        ours = running(Case("vicreg"), 0, 1, 0, "bf16")
        with patch.object(ours.engine, place, side_effect=torch.OutOfMemoryError("CUDA out of memory.")):
            try:
                ours.train_step(1)
            except UserError as error:
                sentences.append(str(error))
    ours = running(Case("vicreg"), 0, 1, 0)
    assert ours.target is not None
    with patch.object(ours.target, "follow", side_effect=torch.OutOfMemoryError("CUDA out of memory.")):
        try:
            ours.train_step(1)
        except UserError as error:
            sentences.append(str(error))
    return sentences


def test_memory_that_runs_out_after_the_backward_is_not_blamed_on_the_micro_batch() -> None:
    sentences = run(memory_runs_out_after_the_backward, 1)[0]
    assert len(sentences) == 3
    assert all("A smaller train.micro_batch does not change that" in sentence for sentence in sentences)


def trained_in_little_memory(rank: int, size: int) -> list[int]:
    """The size of the bucket of gradients in each stage, with 400 MB of address space to spare."""
    import resource

    running(Case("vicreg"), rank, size, 0).train_step(1)  # what every engine needs once
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + 400 * 2**20, resource.RLIM_INFINITY))
    buckets = []
    for stage in (1, 2, 3):
        ours = running(Case("vicreg"), rank, size, stage)
        assert ours.train_step(1).applied
        buckets.append(int(vars(ours.engine.optimizer)["reduce_bucket_size"]))
        if size == 1:
            assert buckets[-1] == sum(shard.length for shard in ours.engine.shards)
    return buckets


def test_the_bucket_of_gradients_is_no_larger_than_the_model() -> None:
    """deepspeed's own takes 2 GB, whatever the model."""
    for size in (1, 2):
        for buckets in run(trained_in_little_memory, size):
            assert len(set(buckets)) == 1
            assert buckets[0] < 10**6


def poisoned(rank: int, size: int) -> None:
    """A NaN on one rank: every rank skips, and the run goes on as if that step had not been."""
    for stage in range(4):
        for precision in ("fp32", "bf16"):
            ends = []
            for poison in (True, False):
                ours = running(Case("corinfomax", dropout=0.1), rank, size, stage, precision)
                for step in (1, 2, 3, 4):
                    if step == 3:
                        if poison:
                            skipped = poisoned_step(ours, step, rank)
                            assert not skipped.applied
                        continue
                    assert ours.train_step(step).applied
                buffers = {n: b.clone() for n, b in ours.engine.module.objective.named_buffers()}
                ends.append((ours.whole("master"), ours.whole("ema"), ours.whole("exp_avg_sq"), buffers))
            for with_skip, without in zip(*ends, strict=True):
                for name in without:
                    assert torch.equal(with_skip[name], without[name]), (stage, precision, name)


def poisoned_step(ours: Running, step: int, rank: int) -> StepResult:
    embedding = ours.engine.module.projector
    hook = embedding.register_forward_hook(lambda _m, _i, out: out * float("nan") if rank == 1 else out)
    try:
        return ours.train_step(step)
    finally:
        hook.remove()


def test_a_nan_on_one_rank_moves_nothing_anywhere() -> None:
    run(poisoned, 2)


def test_different_data_on_every_rank() -> None:
    """The premise of all laws here."""
    from oracle import batch

    parts = [batch(1, rank, 3).micro_batches[0].input_ids for rank in range(3)]
    assert not torch.equal(parts[0], parts[1])
    assert not torch.equal(parts[1], parts[2])
    assert replace(batch(1), step=2).ids == batch(1).ids
