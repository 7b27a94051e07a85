"""parallel.compile: its operations are the masks of masks.py, and what cannot be compiled is refused by a sentence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._inductor import config
from unit.model.encoders import make_encoder, sentences

from unsee_dist.data.stream.mask_keys import mask_keys
from unsee_dist.data.stream.packing import MicroBatch, pack
from unsee_dist.errors import UserError
from unsee_dist.model import compiled, mask_operations, mask_rows
from unsee_dist.model.compiled import check_compile, check_cpp_compiler, compile_encoders
from unsee_dist.model.dropout import Masks, install, register, remove
from unsee_dist.model.encoder import encode
from unsee_dist.supervision.phases import current_phase, observing


@pytest.fixture(autouse=True)
def _no_graphs_of_other_tests() -> None:
    torch.compiler.reset()


def rows() -> mask_rows.MaskRows:
    own = Masks()
    with own.of(micro_batch(), 2):
        assert own.rows is not None
        return own.rows


def micro_batch(seed: int = 1) -> MicroBatch:
    return pack(sentences(6, seed), 30, 0, True, mask_keys(0, 1, np.arange(6)), few_shapes=True)


def of_shape(kind: str) -> Tensor:
    count, tokens = rows().keys_RT.shape
    generator = torch.Generator().manual_seed(0)
    shape = (count, tokens, 8) if kind == "hidden" else (count, 2, tokens, tokens)
    return torch.randn(shape, generator=generator)


@pytest.mark.parametrize("kind", ["hidden", "attention"])
def test_operations_of_a_graph_are_the_masks(kind: str) -> None:
    """Bit for bit, with their gradient, on a CPU; the operation of a GPU, too, by the definition."""
    x = of_shape(kind).requires_grad_()
    expected = mask_rows.dropped(x, rows(), 0.1, 7)
    (gradient,) = torch.autograd.grad(expected.square().sum(), x)
    on_gpu = mask_operations._dropped(x, rows().keys_RT, rows().positions_RT, rows().spans_N3, 0.1, 7)
    for ours in (mask_operations.dropped(x, rows(), 0.1, 7), on_gpu):
        assert torch.equal(ours, expected)
        assert torch.equal(torch.autograd.grad(ours.square().sum(), x)[0], gradient)
    assert 0.05 < float((expected == 0).float().mean()) < 0.15


@pytest.mark.parametrize("kind", ["hidden", "attention"])
def test_operations_are_what_torch_asks_of_one(kind: str) -> None:
    """Their results have the shapes, strides and types that a graph is made with; their gradients are registered."""
    x, of = of_shape(kind), rows()
    grids = (of.keys_RT, of.positions_RT, of.spans_N3)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(
        torch.ops.unsee.multiplier.default, (*grids, list(x.shape), x.dtype, 0.1, 7), test_utils=checks
    )
    torch.library.opcheck(
        torch.ops.unsee.dropped.default, (x.requires_grad_(), *grids, 0.1, 7), test_utils=checks
    )


def encoder(name: str = "bert") -> Any:
    made = make_encoder(name, register()).train()
    install(made)
    return made


def test_no_compiler_is_a_sentence() -> None:
    check_cpp_compiler()
    none = config.patch({"cpp.cxx": ("no-such-compiler",)})
    wanted = r"needs a C\+\+ compiler, and torch finds none.*CXX.*parallel\.compile=false"
    with none, pytest.raises(UserError, match=wanted):
        check_compile("tiny", encoder(), True)


def test_an_encoder_that_cannot_be_packed_is_a_sentence() -> None:
    with pytest.raises(
        UserError, match=r"tiny cannot separate sentences that share a row.*parallel\.compile=false"
    ):
        check_compile("tiny", encoder(), False)


def test_masks_of_torch_are_a_sentence() -> None:
    made = encoder()
    remove(made)
    with pytest.raises(UserError, match=r"tiny draws its dropout by torch's own generator.*model\.dropout=0"):
        check_compile("tiny", made, True)


def test_a_gpu_without_triton_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    made = encoder()
    monkeypatch.setattr(made, "parameters", lambda: iter([SimpleNamespace(device=torch.device("cuda"))]))
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: False)
    with pytest.raises(UserError, match="needs Triton for this GPU"):
        check_compile("tiny", made, True)


def model(online: Any) -> Any:
    return SimpleNamespace(online=online, target=None)


def test_an_encoder_that_is_more_than_one_graph_is_a_sentence() -> None:
    made = encoder()
    whole = made.encoder.forward

    def broken(*given: Any, **named: Any) -> Any:
        torch._dynamo.graph_break()
        return whole(*given, **named)

    made.encoder.forward = broken
    compile_encoders(model(made), "tiny")
    with pytest.raises(UserError, match=r"tiny cannot be compiled as one graph: .*parallel\.compile=false"):
        encode(made, micro_batch(), "mean", 2)


def test_a_compiler_that_fails_is_a_sentence() -> None:
    from torch._inductor.exc import CppCompileError, InductorError

    error = CppCompileError(
        ["g++"], "main.cpp:1:10: fatal error: Python.h: No such file or directory\n1 error"
    )
    for raised in (error, InductorError(error, None)):
        with (
            pytest.raises(UserError, match=r"fatal error: Python\.h.*python3-dev"),
            compiled._explained("tiny"),
        ):
            raise raised
    with pytest.raises(InductorError), compiled._explained("tiny"):
        raise InductorError(ValueError("a bug"), None)


def graphs_by(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without inductor's compiler: dynamo's graphs alone."""
    whole = torch.compile

    def compile_by(function: Any, **how: Any) -> Any:
        return whole(function, **{**how, "options": None, "backend": backend})

    monkeypatch.setattr(torch, "compile", compile_by)


def test_graphs_are_counted_by_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs_by("eager", monkeypatch)
    made, eager = encoder(), encoder()
    keys = made.state_dict().keys()
    compilations = compile_encoders(model(made), "tiny")
    assert made.state_dict().keys() == keys
    batches = [micro_batch(seed) for seed in (1, 2, 1, 3, 2)]
    shapes = {len(batch.input_ids) for batch in batches}
    phases: list[str] = []
    with observing(lambda phase, _: phases.append(phase)):
        for batch in batches:
            torch.testing.assert_close(encode(made, batch, "mean", 2), encode(eager, batch, "mean", 2))
    assert len(shapes) > 1
    assert len(compilations.made) == len(shapes)
    assert compilations.repeated == 0
    assert phases.count("compile") == len(shapes)  # a rank that compiles does not hang
    assert current_phase().phase != "compile"
    assert len(compilations.news()) == len(shapes)
    assert compilations.news() == []
    made.eval()
    encode(made, pack([[5, 6, 7]], 20, 0, False), "mean", 1)  # an evaluation has any shape
    assert len(compilations.made) == len(shapes)
    assert str(compilations.made[0]).startswith("compiled the online encoder for ")


def test_a_graph_that_does_not_fit_again_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another setting of the process that graphs depend on: the storm of which the log warns."""
    graphs_by("eager", monkeypatch)
    made = encoder()
    compilations = compile_encoders(model(made), "tiny")
    encode(made, micro_batch(), "mean", 2)
    with torch.no_grad():
        encode(made, micro_batch(), "mean", 2)
    assert [one.again for one in compilations.made] == [False, True]
    assert compilations.repeated == 1
