"""A step's order and what it leaves alone, seen from a stand-in for the engine; the real one is in tests/procs."""

from __future__ import annotations

import math
import socket
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from unsee_dist.data.stream.packing import pack
from unsee_dist.data.stream.stream import Batch
from unsee_dist.errors import UserError
from unsee_dist.supervision import phases
from unsee_dist.training.step import StepResult, explain_out_of_memory, train_step

STEP = 41


def batch(*sentences: int) -> Batch:
    """A batch with micro-batches of so many sentences of one token."""
    pieces = tuple(pack([[7]] * count, 4, 0, False) for count in sentences)
    return Batch(STEP, tuple(range(sum(sentences))), pieces, sum(sentences))


class Remembering:
    """An objective with state, as CorInfoMax."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def commit(self) -> None:
        self.log.append("commit")

    def discard(self) -> None:
        self.log.append("forget")


class Recorded:
    """Says into `log` what it is asked for. `norm`: of this step's gradients; `scales`: loss scales that are lower."""

    def __init__(
        self, log: list[str], precision: str = "bf16", norm: float = 2.5, stateful: bool = True
    ) -> None:
        self.log, self.precision, self.norm, self.scales = log, precision, norm, 0
        self.loss, self.asked_by_others = torch.tensor(3.0, requires_grad=True), 0.0
        objective = Remembering(log) if stateful else object()
        self.module = SimpleNamespace(objective=objective, terms=("agree", "spread"))
        self.lr: float | None = None
        self.stepped_with: float | None = None
        self.reported: list[float] = []

    def __call__(self, micro_batches: Any) -> tuple[Tensor, Tensor]:
        self.log.append(f"forward of {len(micro_batches)}")
        return self.loss * 1.0, torch.tensor([1.0, 2.0])

    def backward(self, loss: Tensor) -> None:
        self.log.append("backward")
        loss.backward()

    def reduce(self, values: Tensor) -> tuple[list[float], float]:
        assert not values.requires_grad
        self.log.append("reduce")
        self.reported = values.tolist()
        *means, asked = self.reported
        return [*means, max(asked, self.asked_by_others)], self.norm

    def step(self, lr: float, norm: float) -> None:
        self.log.append("step")
        self.lr, self.stepped_with = lr, norm

    def lower_loss_scale(self) -> bool:
        self.scales -= 1
        return self.scales >= 0

    def discard(self) -> None:
        self.log.append("discard")


class Followed:
    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.decay: float | None = None

    def follow(self, decay: float) -> None:
        self.log.append("follow")
        self.decay = decay


def taken(engine: Any, target: Any, stop: Any = None, lr: float = 1e-3) -> StepResult:
    return train_step(engine, target, batch(2, 3), lr, 0.99, stop)


def test_an_applied_step_in_its_order_and_its_phases() -> None:
    log: list[str] = []
    engine, target = Recorded(log), Followed(log)

    def entered(phase: str, step: int) -> None:
        log.append(f"[{phase} {step}]")

    phases.enter_phase("start", 0)
    with phases.observing(entered):
        result = taken(engine, target)
    assert log == [
        f"[forward {STEP}]",
        "forward of 2",
        f"[backward {STEP}]",
        "backward",
        f"[finish {STEP}]",
        "reduce",
        f"[update {STEP}]",
        "step",
        "commit",
        f"[ema {STEP}]",
        "follow",
        f"[log {STEP}]",
    ]
    assert result == StepResult(
        3.0, {"agree": 1.0, "spread": 2.0}, 2.5, applied=True, overflow=False, stop_requested=False
    )
    assert (engine.lr, engine.stepped_with, target.decay) == (1e-3, 2.5, 0.99)
    assert engine.loss.grad == 1.0


@pytest.mark.parametrize("bad", ["loss", "norm", "both"])
def test_a_step_that_is_not_finite_moves_nothing(bad: str) -> None:
    log: list[str] = []
    engine = Recorded(log, norm=math.inf if bad != "loss" else 2.5)
    if bad != "norm":
        engine.loss = torch.tensor(math.nan, requires_grad=True)
    result = taken(engine, Followed(log))
    assert log == ["forward of 2", "backward", "reduce", "discard", "forget"]
    assert result.applied is False
    assert math.isfinite(result.loss) == (bad == "norm")
    assert math.isfinite(result.grad_norm) == (bad == "loss")


@pytest.mark.parametrize("norm", [math.inf, math.nan])
def test_an_overflow_in_fp16_lowers_the_scale_and_moves_nothing(norm: float) -> None:
    log: list[str] = []
    engine = Recorded(log, "fp16", norm)
    engine.scales = 1
    first = taken(engine, Followed(log))
    assert (first.applied, first.overflow) == (False, True)
    assert log == ["forward of 2", "backward", "reduce", "discard", "forget"]
    lowest = taken(
        engine, Followed(log)
    )  # as low as it goes: the gradients are not finite for another reason
    assert (lowest.applied, lowest.overflow) == (False, False)


def test_a_loss_that_is_not_finite_is_no_overflow() -> None:
    engine = Recorded([], "fp16", math.inf)
    engine.scales, engine.loss = 1, torch.tensor(math.inf, requires_grad=True)
    assert taken(engine, None).overflow is False
    assert engine.scales == 1


def test_a_finite_step_in_fp16_is_applied() -> None:
    log: list[str] = []
    assert taken(Recorded(log, "fp16"), Followed(log)).applied
    assert log[-3:] == ["step", "commit", "follow"]


def test_without_a_target_and_without_state_only_the_weights_move() -> None:
    log: list[str] = []
    assert taken(Recorded(log, stateful=False), None).applied
    assert log == ["forward of 2", "backward", "reduce", "step"]
    engine = Recorded(log, stateful=False, norm=math.nan)
    assert not taken(engine, None).applied


def test_ranks_tell_each_other_that_one_of_them_was_asked_to_stop() -> None:
    engine = Recorded([])
    for stop, own in (
        (None, 0.0),
        (SimpleNamespace(requested=False), 0.0),
        (SimpleNamespace(requested=True), 1.0),
    ):
        assert taken(engine, None, stop).stop_requested is (own > 0)
        assert engine.reported == [3.0, 1.0, 2.0, own]
    engine.asked_by_others = 1 / 256  # the mean over ranks
    assert taken(engine, None, SimpleNamespace(requested=False)).stop_requested is True


def test_terms_without_a_name_are_our_own_mistake() -> None:
    engine = Recorded([])
    engine.module.terms = ("agree",)
    with pytest.raises(ValueError, match="zip"):
        taken(engine, None)


def test_memory_that_runs_out_in_a_step_is_a_sentence() -> None:
    engine = Recorded([])

    def runs_out(_loss: Tensor) -> None:
        raise torch.OutOfMemoryError("out of memory")

    engine.backward = runs_out  # type: ignore[method-assign]
    with pytest.raises(UserError, match=rf"train\.micro_batch = 3 does not fit .* at step {STEP}: "):
        taken(engine, None)


def refused(error: Exception, *sentences: int) -> str:
    with pytest.raises(UserError) as caught, explain_out_of_memory(batch(*sentences)):
        raise error
    assert caught.value.__cause__ is error
    return str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory.\nSee the documentation"),
        MemoryError("CUDA out of memory."),
        RuntimeError("CUDA out of memory. you can't allocate memory here"),
    ],
)
def test_memory_that_runs_out_names_half_the_largest_micro_batch(error: Exception) -> None:
    message = refused(error, 3, 9, 5)
    assert message.startswith(
        f"train.micro_batch = 9 does not fit into the memory of {socket.gethostname()} at step {STEP}: CUDA out of"
    )
    assert message.endswith(" Write train.micro_batch=4: a step then needs less at once.")
    assert "See the documentation" not in message


def test_one_sentence_that_does_not_fit_asks_for_shorter_ones_or_more_ranks() -> None:
    assert refused(MemoryError("no memory"), 2).endswith(
        "Write train.micro_batch=1: a step then needs less at once."
    )
    assert refused(MemoryError("no memory"), 1).endswith(
        "no memory A single sentence does not fit: lower model.max_tokens, or use more ranks and parallel.zero=3."
    )


def test_memory_for_the_gradients_is_no_matter_of_the_micro_batch() -> None:
    asks: dict[str, Any] = {"__name__": "deepspeed.runtime.zero.stage_1_and_2"}
    exec("def reduce(): raise MemoryError('2 GB were asked for')", asks)
    with pytest.raises(UserError) as caught, explain_out_of_memory(batch(3, 9)):
        asks["reduce"]()
    message = str(caught.value)
    assert "does not fit into the memory of" in message
    assert ": 2 GB were asked for" in message
    assert "A smaller train.micro_batch does not change that. Use parallel.zero=3 on more ranks" in message
    assert "Write train.micro_batch" not in message


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), ValueError("can't allocate memory"), KeyError(1)]
)
def test_other_errors_of_a_step_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explain_out_of_memory(batch(3)):
        raise error
    assert caught.value is error
