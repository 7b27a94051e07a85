"""parallel.compile: compiled encoders train what eager ones do, to law 2's bounds, with one graph for each shape.

Each case compiles for many seconds: few of them, and slow. The control of the rows of padding is in test_few_shapes.py.
"""

from __future__ import annotations

import pytest
from oracle import DEVICE, Case, batch, oracle, running
from processes import run
from test_engine import compare

from unsee_dist.model.compiled import Compilations, compile_encoders

STEPS = 10
pytestmark = pytest.mark.slow


def shapes(rank: int, size: int, micro_batch: int | None, steps: int) -> set[tuple[int, int]]:
    """Rows of the micro-batches of these steps, and sentences, whose places a graph for a CPU is given."""
    return {
        (len(part.input_ids), part.sentences if DEVICE.type == "cpu" else 0)
        for step in range(1, steps + 1)
        for part in batch(step, rank, size, micro_batch, few_shapes=True).micro_batches
    }


def equals_one_process(
    rank: int, size: int, case: Case, stage: int, micro_batch: int | None
) -> tuple[Compilations, tuple[float, ...]]:
    made: list[Compilations] = []

    def compiled(*args: object) -> object:
        ours = running(*args)  # type: ignore[arg-type]
        made.append(compile_encoders(ours.engine.module, "tiny"))
        return ours

    truth = oracle(case, STEPS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("test_engine.running", compiled)
        errors = compare(case, truth, rank, size, stage, micro_batch=micro_batch, few_shapes=True)
    assert max(errors[:2]) < 1e-5, (case, stage, micro_batch, errors)
    assert errors[2] < 2e-5, (case, stage, micro_batch, errors)
    (compilations,) = made
    expected = shapes(rank, size, micro_batch, STEPS)
    networks = 2 if case.ema else 1
    assert len(compilations.made) == networks * len(expected)
    assert compilations.repeated == 0
    return compilations, errors


@pytest.mark.parametrize("micro_batch", [None, 5])
def test_one_process_compiled(micro_batch: int | None) -> None:
    case = Case("vicreg", dropout=0.1)
    print(run(equals_one_process, 1, case, 0, micro_batch, timeout_s=600))


@pytest.mark.parametrize(("stage", "micro_batch"), [(0, None), (1, 5), (2, None)])
def test_two_ranks_compiled(stage: int, micro_batch: int | None) -> None:
    case = Case("vicreg", dropout=0.1)
    print(run(equals_one_process, 2, case, stage, micro_batch, timeout_s=600))


def test_without_a_target_network() -> None:
    print(
        run(
            equals_one_process,
            1,
            Case("simcse", ema=False, both=True, projector="tanh", dropout=0.1),
            0,
            None,
            timeout_s=600,
        )
    )
