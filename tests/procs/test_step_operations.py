"""A step draws from no generator, and on a GPU it has no operation whose result depends on the order of threads.

The first makes dropout the same in a recomputed micro-batch, and on any layout; the second makes two runs equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import oracle
import pytest
import torch
from oracle import Case, Running, running
from processes import run
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unsee_dist.data.stream.packing import MicroBatch
from unsee_dist.distributed import engine
from unsee_dist.distributed.reduce import Reduction
from unsee_dist.model import dropout, encoder, masks
from unsee_dist.objectives import OBJECTIVES

CASES = [Case(name, dropout=0.1) for name in OBJECTIVES if name != "simcse"] + [
    Case("simcse", ema=False, both=True, projector="tanh", dropout=0.1),
    Case("vicreg", both=True, dropout=0.1),
]


# Generators.


class NoGenerator(TorchDispatchMode):
    """Refuses every operation that draws random numbers."""

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise AssertionError(f"{func} draws from torch's generator")
        return func(*args, **kwargs or {})


def without_generator(rank: int, size: int) -> None:
    for case in CASES:
        for stage in (0, 3) if case is CASES[0] else (1,):
            ours = running(case, rank, size, stage)
            cuts = ((None, True), (5, True), (5, False))
            batches = [oracle.batch(1, rank, size, micro_batch, packed) for micro_batch, packed in cuts]
            before = torch.get_rng_state()
            with NoGenerator():
                for batch in batches:
                    assert oracle.train_step(ours.engine, ours.target, batch, 1e-3, 0.9).applied
            assert torch.equal(torch.get_rng_state(), before), (case, stage)


def test_a_step_with_dropout_draws_from_no_generator() -> None:
    run(without_generator, 1, timeout_s=300)


def with_torchs_dropout(_rank: int, _size: int) -> str:
    ours = running(CASES[0], 0, 1, 1)
    dropout.remove(ours.engine.module.online)
    batch = oracle.batch(1, micro_batch=5)
    try:
        with NoGenerator():
            oracle.train_step(ours.engine, ours.target, batch, 1e-3, 0.9)
    except AssertionError as error:
        return str(error)
    return ""


def test_torchs_own_dropout_is_refused() -> None:
    assert "draws from torch's generator" in run(with_torchs_dropout, 1)[0]


# Operations whose result depends on the order of threads on CUDA: torch.use_deterministic_algorithms, torch 2.13.
# Among them, where torch could do it in another way, those that it does so only when it is told to.

ADDS = ("index_add", "scatter_add", "scatter_reduce", "index_reduce", "put", "_index_put_impl")
ALWAYS = {
    "adaptive_avg_pool2d_backward",
    "adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward",
    "avg_pool3d_backward",
    "ctc_loss_backward",
    "embedding_bag_dense_backward",
    "fractional_max_pool2d_backward",
    "fractional_max_pool3d_backward",
    "grid_sampler_2d_backward",
    "grid_sampler_3d_backward",
    "histc",
    "max_pool3d_with_indices_backward",
    "max_unpool2d",
    "max_unpool3d",
    "median",
    "nll_loss2d_forward",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "reflection_pad3d_backward",
    "replication_pad1d_backward",
    "replication_pad2d_backward",
    "replication_pad3d_backward",
    "upsample_linear1d_backward",
    "upsample_bilinear2d_backward",
    "upsample_bicubic2d_backward",
    "upsample_trilinear3d_backward",
    # the fused attentions of CUDA add the gradient of the queries in any order
    "scaled_dot_product_flash_attention_backward",
    "scaled_dot_product_flash_attention_for_cpu_backward",
    "scaled_dot_product_efficient_attention_backward",
    "scaled_dot_product_cudnn_attention_backward",
}


# In order where torch is told so (distributed/deterministic.py), though its documentation does not name it.
WHERE_TOLD = {"embedding_dense_backward"}


class AnyOrder(AssertionError):
    """On a GPU this operation gives other bits from run to run."""


def refuse_any_order(func: Any, args: Any, kwargs: dict[str, Any]) -> None:
    """A watcher of the pretended GPU. Sums of integers are exact in any order; so are minima and maxima."""
    name = func._schema.name.removeprefix("aten::").strip("_")
    floating = any(t.is_floating_point() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor))
    named = {**dict(zip((a.name for a in func._schema.arguments), args, strict=False)), **kwargs}
    adds = (
        name in {add.strip("_") for add in ADDS} and floating and named.get("reduce") not in ("amin", "amax")
    )
    # index_put sorts where it accumulates; where it does not, one of two values for a place wins
    overwrites = name in ("index_put", "index_copy", "scatter") and not named.get("accumulate", False)
    sums = (name == "cumsum" and floating) or (name == "bincount" and named.get("weights") is not None)
    untold = name in WHERE_TOLD and not torch.are_deterministic_algorithms_enabled()
    if name in ALWAYS or adds or overwrites or sums or untold:
        raise AnyOrder(f"{func} on a GPU depends on the order of its threads")


@contextmanager
def watched_running(case: Case, stage: int) -> Iterator[Running]:
    from unsee_dist.bench.pretended.device import DEVICE
    from unsee_dist.bench.pretended.world import pretended_world

    with pretended_world(0, 2) as pretended, mock.patch.object(oracle, "DEVICE", DEVICE):
        ours = running(case, 0, 2, stage)
        with pretended.gpu.watched(refuse_any_order):
            yield ours


def in_order(_rank: int, _size: int) -> None:
    for case in CASES:
        for stage in (0, 2, 3) if case is CASES[0] else (1,):
            with watched_running(case, stage) as ours:
                for step, micro_batch, packed in ((1, 5, True), (2, None, False)):
                    assert ours.train_step(step, micro_batch=micro_batch, packed=packed).applied
                ours.engine.module.pooling = "cls"
                assert ours.train_step(3, micro_batch=5).applied


def test_a_step_on_a_gpu_has_no_operation_in_any_order() -> None:
    run(in_order, 1, timeout_s=400)


def wrong_ways(_rank: int, _size: int) -> dict[str, str]:
    """Steps that would differ from run to run on a GPU: what refuses each of them."""

    def index_add(patch: Any) -> None:
        """Pooling as it once was."""
        patch.setattr(encoder, "_reduced", encoder._added)

    def gather(patch: Any) -> None:
        """Its gradient is a scatter_add."""

        def selected(x_ND: Tensor, segment_N: Tensor, segments: int) -> Any:
            return summed(
                x_ND.gather(0, torch.zeros_like(segment_N)[:, None].expand_as(x_ND)), segment_N, segments
            )

        summed = encoder._SegmentMeans.apply
        patch.setattr(encoder, "_SegmentMeans", mock.Mock(apply=selected))

    def told_nothing(patch: Any) -> None:
        """The gradient of an embedding as torch computes it by itself."""
        patch.setattr(engine, "sums_in_order", lambda _device: nullcontext())

    def sdpa(ours: Running) -> None:
        ours.engine.module.online.set_attn_implementation("sdpa")

    refusals = {}
    for label, change in (("index_add", index_add), ("gather", gather), ("told nothing", told_nothing)):
        with pytest.MonkeyPatch.context() as patch, watched_running(CASES[0], 1) as ours:
            change(patch)
            refusals[label] = refusal(ours)
    with watched_running(Case("vicreg"), 1) as ours:
        sdpa(ours)
        refusals["sdpa"] = refusal(ours)
    return refusals


def refusal(ours: Running) -> str:
    try:
        ours.train_step(1)
    except AnyOrder as error:
        return str(error)
    return ""


def test_known_ways_that_differ_from_run_to_run_are_refused() -> None:
    refusals = run(wrong_ways, 1)[0]
    assert "aten.index_add_" in refusals["index_add"]
    assert "aten.scatter_add" in refusals["gather"]
    assert "embedding_dense_backward" in refusals["told nothing"]
    assert "attention" in refusals["sdpa"]


# The same forward and backward on torch's fake tensors: no values, but each operation's own rule of devices, also in C++.
# Their device is not "cuda": a torch without CUDA refuses to index such tensors. torch lets a test register a device of its own.


class OnTheHost(TorchDispatchMode):
    """Writes down every operation that has a tensor of the host among its results, numbers (0-d) excluded."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **kwargs or {})
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.device.type == "cpu" and tensor.dim() > 0:
                self.found.append(f"{func} {tuple(tensor.shape)}")
        return made


def fake_step(
    case: Case, micro_batch: int | None, packed: bool, change: Callable[[nn.Module], None]
) -> list[str]:
    """What a forward and backward on fake tensors of a GPU makes on the host."""
    gpu = torch.device("pretended", 0)
    real, alone = oracle.batch(1, micro_batch=micro_batch, packed=packed), Reduction()
    module = oracle.model(case, alone, alone)
    held = {id(p): p.detach() for p in module.parameters()}
    with FakeTensorMode() as fake:

        def on_gpu(grid: Tensor) -> Tensor:
            return fake.from_tensor(grid).to(gpu)

        batches = [
            MicroBatch(
                *map(on_gpu, (b.input_ids, b.position_ids, b.segment_ids)),
                b.sentences,
                on_gpu(b.keys),
                b.packed,
            )
            for b in real.micro_batches
        ]
        for each in module.modules():
            for name, parameter in each._parameters.items():
                if parameter is not None:
                    made = nn.Parameter(on_gpu(held[id(parameter)]), parameter.requires_grad)
                    each._parameters[name] = made
            each._buffers.update({name: on_gpu(buffer) for name, buffer in each._buffers.items()})
        change(module)
        with OnTheHost() as host:
            loss, _ = module(batches)
            loss.backward()
        assert loss.device == gpu
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        assert len(gradients) > 10
        assert {gradient.device for gradient in gradients} == {gpu}
    return host.found


@contextmanager
def fake_gpu() -> Iterator[None]:
    """The device, and in place of what is made once, from values (constants of the masks, the factor), what needs none."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend("pretended")
    torch.get_device_module("pretended").get_amp_supported_dtype = lambda: [torch.float16]  # checkpoint asks
    factor = masks.threshold(0.1, torch.float32)

    def constants(count: int, device: torch.device) -> Tensor:
        return torch.empty(count, dtype=torch.int64, device=device)

    with (
        mock.patch.object(masks, "constants", constants),
        mock.patch.object(masks, "multiplier", lambda lanes, _p, dtype: lanes.to(dtype) * factor[1]),
    ):
        yield


def on_fake_gpu(_rank: int, _size: int) -> dict[str, list[str]]:
    with fake_gpu():
        return {
            f"{case} {micro_batch} {packed}": fake_step(case, micro_batch, packed, lambda _: None)
            for case in CASES
            for micro_batch, packed in ((None, True), (5, True), (5, False))
        }


@pytest.mark.slow
def test_no_tensor_of_a_step_is_made_on_the_host() -> None:
    for label, found in run(on_fake_gpu, 1)[0].items():
        assert found == [], label


def made_on_the_host(_rank: int, _size: int) -> tuple[list[str], str]:
    """A tensor that is made on the host and copied; and one that is not copied."""

    def shifted(copied: bool) -> Callable[[nn.Module], None]:
        def shift(_module: nn.Module, _inputs: object, z: Tensor) -> Tensor:
            shift_D = torch.zeros(z.shape[-1])
            return z + (shift_D.to(z.device) if copied else shift_D)

        def change(module: nn.Module) -> None:
            module.projector.register_forward_hook(shift)

        return change

    with fake_gpu():
        found = fake_step(CASES[0], None, True, shifted(True))
        try:
            fake_step(CASES[0], None, True, shifted(False))
        except Exception as error:
            return found, str(error)
    return found, ""


def test_a_tensor_that_is_made_on_the_host_is_seen() -> None:
    found, refused = run(made_on_the_host, 1)[0]
    assert any("zeros" in operation for operation in found)
    assert "pretended:0" in refused
