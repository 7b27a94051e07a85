"""What NCCL refuses is refused without a GPU; steps and whole runs pass, at 2, 8 and 64 pretended ranks and on two real ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import oracle
import pytest
import torch
import torch.distributed as dist
from integration import tiny
from oracle import Case, running
from processes import run

SLOW = pytest.mark.slow
CASE = Case("corinfomax", dropout=0.1, both=True)


# What is refused.


def refusals(_rank: int, _size: int) -> dict[str, str]:
    from unsee_dist.bench.strict_group import Refused, pretended_world

    said: dict[str, str] = {}
    with pretended_world(0, 8) as pretended:
        host, gpu = torch.ones(4, 4), torch.ones(4, 4, device="cuda")
        gloo = dist.new_group(backend="gloo")
        objects: list[Any] = [None] * 8

        def hot(collective: Callable[[], object]) -> Callable[[], None]:
            def call() -> None:
                with pretended.hot_path():
                    collective()

            return call

        # complex numbers are not here: torch itself sends them as pairs
        wrong: dict[str, Callable[[], object]] = {
            "host tensor": lambda: dist.all_reduce(host),
            "host output": lambda: dist.all_gather_into_tensor(torch.ones(32, 4), gpu),
            "not contiguous": lambda: dist.all_reduce(gpu.T[:2]),
            "int16": lambda: dist.all_reduce(gpu.to(torch.int16)),
            "bitwise": lambda: dist.all_reduce(gpu.int(), dist.ReduceOp.BAND),
            "other shapes": lambda: dist.all_gather([gpu] * 7 + [gpu[0]], gpu),
            "output too small": lambda: dist.all_gather_into_tensor(torch.ones(28, 4, device="cuda"), gpu),
            "other dtype": lambda: dist.all_gather_into_tensor(gpu.double().repeat(8, 1), gpu),
            "parts too small": lambda: dist.reduce_scatter_tensor(gpu, torch.ones(28, 4, device="cuda")),
            "object of host tensors": lambda: dist.all_gather_object(objects, [("weight", host)]),
            "object of GPU tensors": lambda: dist.gather_object({"weight": gpu}, objects, dst=0),
            "object in a step": hot(lambda: dist.all_gather_object(objects, 1)),
            "broadcast of objects in a step": hot(lambda: dist.broadcast_object_list([1], src=0)),
            "barrier in a step": hot(lambda: dist.barrier()),
            "GPU tensor over gloo": lambda: dist.all_reduce(gpu, group=gloo),
        }
        for label, collective in wrong.items():
            try:
                collective()
            except Refused as error:
                said[label] = str(error)
            else:
                said[label] = ""
    return said


def test_what_nccl_refuses_is_refused() -> None:
    said = run(refusals, 1)[0]
    assert [label for label, reason in said.items() if not reason] == []
    assert "No backend type associated with device type cpu" in said["host tensor"]
    assert "torch.int16" in said["int16"]
    assert "Give it a gloo group" in said["object of host tensors"]


def allowed(_rank: int, _size: int) -> tuple[dict[str, Any], list[tuple[str, int, int]]]:
    from unsee_dist.bench.strict_group import pretended_world

    found: dict[str, Any] = {}
    with pretended_world(3, 8) as pretended:
        x = torch.arange(4.0, device="cuda")
        gloo = dist.new_group(backend="gloo")
        total = x.clone()
        dist.all_reduce(total)
        found["sum"] = total.tolist()
        whole = torch.zeros(32, device="cuda")
        dist.all_gather_into_tensor(whole, x)
        found["gathered"] = whole.view(8, 4).tolist()
        part = torch.zeros(4, device="cuda")
        dist.reduce_scatter_tensor(part, torch.arange(32.0, device="cuda"))
        found["scattered"] = part.tolist()
        objects: list[Any] = [None] * 8
        dist.all_gather_object(objects, {"rank": 3})
        found["objects"] = objects
        on_host = torch.ones(2)
        dist.all_reduce(on_host, group=gloo)
        found["gloo"] = on_host.tolist()
        before = len(pretended.ledger.sent)
        dist.barrier()
        sent = [(each.kind, each.bytes, each.group) for each in pretended.ledger.sent]
        found["barrier"] = sent[before:]
    return found, sent[:3]


def test_the_rest_is_done_as_if_all_ranks_had_given_the_same() -> None:
    found, sent = run(allowed, 1)[0]
    assert found["sum"] == [0, 8, 16, 24]
    assert found["gathered"] == [[0, 1, 2, 3]] * 8
    assert found["scattered"] == [96, 104, 112, 120]
    assert found["objects"] == [{"rank": 3}] * 8
    assert found["gloo"] == [8, 8]
    assert found["barrier"] == [("barrier", 0, 0)]
    # what a rank sends of 16 bytes where eight ranks form a ring
    assert sent == [("all_reduce", 28, 0), ("all_gather", 112, 0), ("reduce_scatter", 112, 0)]


def mistakes_on_one_device(_rank: int, _size: int) -> dict[str, str]:
    from unsee_dist.bench.pretended_gpu import PretendedGPU

    said = {}
    with PretendedGPU() as gpu:
        host, there = torch.ones(3), torch.ones(3, device="cuda")
        wrong: dict[str, Callable[[], object]] = {
            "add": lambda: host + there,
            "cat": lambda: torch.cat([host, there]),
            "stack of 0-d": lambda: torch.stack([there.sum(), torch.tensor(1.0)]),
            "numpy": lambda: there.numpy(),
            "made on the host": lambda: there * torch.zeros(3),
            "adam's step on the host": lambda: torch._fused_adamw_(
                *([there], [there.clone()], [there.clone()], [there.clone()], [], [torch.tensor(1.0)]),
                lr=0.1,
                beta1=0.9,
                beta2=0.99,
                weight_decay=0.0,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            ),
            "in backward": lambda: _Wrong.apply(there.requires_grad_()).sum().backward(),
        }
        for label, operation in wrong.items():
            try:
                operation()
            except (RuntimeError, TypeError) as error:
                said[label] = str(error)
            else:
                said[label] = ""
        there = torch.ones(3, device="cuda")
        assert (there + torch.tensor(1.0)).device == torch.device("cuda", 0)
        assert there.new_zeros(2).is_cuda
        assert there.to("cpu").is_cpu
        gpu.counts.clear()
        there.sum().item(), there.tolist(), there.cpu(), bool(there[0]), there.nonzero()
        host.sum().item(), host.tolist()
        assert gpu.counts["host_reads"] == 5, gpu.waits
        torch.tensor([1.0], device="cuda"), host.to("cuda"), there.copy_(host)
        assert gpu.counts["uploads"] == 3, gpu.waits
        square, lengths = torch.eye(3, device="cuda"), torch.tensor([1, 2], device="cuda")
        waits: list[Callable[[], object]] = [
            lambda: there[there > 2],
            lambda: there.index_put_((there > 2,), there[:1]),
            lambda: torch.linalg.cholesky(square),
            lambda: torch.linalg.inv(square),
            lambda: torch.linalg.eigh(square),
            lambda: torch.segment_reduce(there, "sum", lengths=lengths),
            lambda: torch.allclose(there, there),
            lambda: torch.multinomial(there, 1),
        ]
        for number, operation in enumerate(waits):
            gpu.counts.clear()
            operation()
            assert gpu.counts["host_reads"] == 1, (number, gpu.waits)
        gpu.counts.clear()
        (
            torch.segment_reduce(there, "sum", lengths=lengths, unsafe=True),
            there[lengths],
            torch.linalg.cholesky_ex(square),
        )
        assert gpu.counts["host_reads"] == 0, gpu.waits
    assert there.is_cpu  # what it was all the time
    return said


class _Wrong(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(_ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * torch.ones(3)


def test_two_devices_do_not_mix_and_what_the_host_waits_for_is_counted() -> None:
    said = run(mistakes_on_one_device, 1)[0]
    assert [label for label, reason in said.items() if not reason] == []
    assert "at least two devices" in said["add"]


# Steps.


@contextmanager
def on_pretended_gpu(rank: int, size: int, carried: bool = False) -> Iterator[Any]:
    """The world, and the oracle's models and batches in it."""
    from unsee_dist.bench.strict_group import DEVICE, pretended_world

    with pretended_world(rank, size, carried) as pretended, mock.patch.object(oracle, "DEVICE", DEVICE):
        yield pretended


def losses(rank: int, size: int, stage: int, pretended: Any = None) -> list[float]:
    ours = running(CASE, rank, size, stage)
    said = []
    for step in (1, 2, 3):
        with pretended.hot_path() if pretended else nullcontext():
            result = ours.train_step(step, micro_batch=5)
        assert result.applied
        said += [result.loss, result.grad_norm]
    return said


def pretended_equals_cpu(rank: int, size: int) -> list[tuple[list[float], list[float]]]:
    found = []
    for stage in range(4):
        on_cpu = losses(rank, size, stage)
        with on_pretended_gpu(rank, size, carried=True) as pretended:
            found.append((on_cpu, losses(rank, size, stage, pretended)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_a_step_on_the_pretended_gpu_is_the_step_on_a_cpu(size: int) -> None:
    """Real ranks, whose collectives the strict group carries: masks, pooling and all else take the GPU's way."""
    for of_rank in run(pretended_equals_cpu, size, timeout_s=300):
        for on_cpu, on_gpu in of_rank:
            assert on_gpu == pytest.approx(on_cpu, rel=1e-6)


def last_rank(_rank: int, _size: int, size: int) -> None:
    """Its parts of the weights are padded, or empty."""
    for stage in range(4):
        with on_pretended_gpu(size - 1, size) as pretended:
            ours = running(CASE, size - 1, size, stage)
            batch = oracle.batch(1, 0, 6).to(oracle.DEVICE)
            with pretended.hot_path():
                oracle.train_step(ours.engine, ours.target, batch, oracle.LR, oracle.DECAY)


@pytest.mark.parametrize("size", [2, 8, 64])
def test_the_last_rank_of_any_number_can_step(size: int) -> None:
    run(last_rank, 1, size, timeout_s=300)


def step_with_a_barrier(_rank: int, _size: int) -> str:
    from unsee_dist.bench.strict_group import Refused

    with on_pretended_gpu(0, 2) as pretended:
        ours = running(CASE, 0, 2, 1)
        reduce = ours.engine.reduce

        def with_objects(values: torch.Tensor) -> Any:
            gathered: list[Any] = [None, None]
            dist.all_gather_object(gathered, "here")
            return reduce(values)

        ours.engine.reduce = with_objects  # type: ignore[method-assign]
        try:
            with pretended.hot_path():
                ours.train_step(1)
        except Refused as error:
            return str(error)
    return ""


def test_a_step_that_gathers_objects_is_refused() -> None:
    assert "all_gather_object in the hot path" in run(step_with_a_barrier, 1)[0]


# Whole runs.

HOT = ("forward", "backward", "finish", "update", "ema")


@contextmanager
def hot_by_phase(pretended: Any) -> Iterator[None]:
    """The hot path is what the loop says it is."""
    from unsee_dist.supervision.phases import observing

    def observe(phase: str, _step: int) -> None:
        pretended.ledger.hot = phase in HOT

    with observing(observe):
        yield


def train(pretended: Any, config: Path, *overrides: str) -> None:
    from unsee_dist import run as runs
    from unsee_dist.config import load

    with mock.patch.object(runs, "join_world", return_value=pretended.world), hot_by_phase(pretended):
        runs.train(load(str(config), list(overrides)))


def cut_back(folder: Path, step: int) -> None:
    """As if the run had been killed after the checkpoint of `step`."""
    for checkpoint in (folder / "checkpoints").glob("step-*"):
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    shutil.rmtree(folder / "final")


def other_files(files: Callable[..., Any]) -> Callable[..., Any]:
    """What the ranks that are not here would write: at stage 0 their parts of the state, which every rank holds; at the
    others zeros, for every element that this rank does not hold."""

    def of_all_ranks(engine: Any, target: Any) -> Any:
        own = files(engine, target)
        if engine.stage > 0:
            return own | {
                "rank-00001.safetensors": zeros_elsewhere(engine, target, own["rank-00000.safetensors"])
            }
        for rank in range(1, engine.world.size):
            seen = SimpleNamespace(
                world=replace(engine.world, rank=rank), shards=engine.shards, moments=engine.moments, stage=0
            )
            own |= files(seen, target)
        return own

    return of_all_ranks


def without_peers(load: Any) -> Any:
    """At stage 0 a rank reads a share and is sent the rest: here nobody sends, and it reads all."""
    from unsee_dist.training.checkpoint import state

    def loaded(*arguments: Any) -> None:
        with mock.patch.object(state, "_owner", lambda _, world: world.rank):
            load(*arguments)

    return loaded


def zeros_elsewhere(engine: Any, target: Any, own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By key: the elements of every parameter that are not among `own`, whose parts are one range a parameter."""
    held = {key.partition("@")[0]: (int(key.partition("@")[2]), len(part)) for key, part in own.items()}
    followed = engine.module.frozen() if target is not None else {}
    missing = {}
    for name, parameter in engine.module.named_parameters():
        size = getattr(parameter, "ds_numel", parameter.numel())
        kinds = ["master", "exp_avg", "exp_avg_sq", *(["ema"] if name in followed else [])]
        for kind in kinds if parameter.requires_grad else ():
            start, length = held.get(f"{kind}/{name}", (0, 0))
            for first, last in ((0, start), (start + length, size)):
                if first < last:
                    missing[f"{kind}/{name}@{first}"] = torch.zeros(last - first)
    return missing


def whole_run(_rank: int, _size: int, config: Path, size: int, stage: int, precision: str) -> dict[str, int]:
    """Trained, evaluated, saved, cut back, resumed, exported: as rank 0."""
    from unsee_dist.training.checkpoint import saving

    folder = config.parent / f"run-{size}-{stage}-{precision}"
    overrides = [f"run.dir={folder}", f"train.batch={2 * size}", f"parallel.zero={stage}"]
    overrides += [f"parallel.precision={precision}", "train.micro_batch=1", "model.dropout=0.1"]
    with on_pretended_gpu(0, size) as pretended:
        from unsee_dist.training.checkpoint.manifest import StoredFile

        def of_peer(_rank: int, own: Any) -> Any:
            """Other ranks write no files here: their own rows of the manifest are absent."""
            return [] if isinstance(own, list) and all(isinstance(one, StoredFile) for one in own) else own

        pretended.ledger.peers = of_peer
        with (
            mock.patch.object(saving.state, "files", other_files(saving.state.files)),
            mock.patch.object(saving.state, "load", without_peers(saving.state.load)),
        ):
            train(pretended, config, *overrides)
            first = tiny.history(folder)
            cut_back(folder, 3)
            train(pretended, config, *overrides)
        assert json.dumps(tiny.history(folder)) == json.dumps(first)
        return dict(pretended.ledger.objects)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tiny.Tiny:
    return tiny.make(tmp_path_factory.mktemp("strict"))


@pytest.mark.parametrize("size", [pytest.param(2, marks=SLOW), 8, pytest.param(64, marks=SLOW)])
@pytest.mark.parametrize(
    ("stage", "precision"),
    [
        pytest.param(0, "fp32", marks=SLOW),
        (1, "fp16"),
        pytest.param(2, "bf16", marks=SLOW),
        pytest.param(3, "fp32", marks=SLOW),
    ],
)
def test_a_whole_run_at_pretended_sizes(made: tiny.Tiny, size: int, stage: int, precision: str) -> None:
    objects = run(whole_run, 1, made.config, size, stage, precision, timeout_s=300)[0]
    assert objects["all_gather_object"] > 0  # errors are shared, outside of steps
    folder = made.folder / f"run-{size}-{stage}-{precision}"
    assert (folder / "final" / "modules.json").is_file()
    assert [line["step"] for line in tiny.history(folder) if "loss" in line] == [1, 2, 3, 4, 5, 6]


def of_a_step(_rank: int, _size: int, config: Path, stage: int, override: str) -> dict[str, float]:
    """Of eight ranks, in the loop of a run: what eight steps have more than four, a step."""
    from unsee_dist.training.checkpoint import saving

    counts: list[dict[str, int]] = []
    for steps in (4, 4, 8):  # the first fills what is kept for a process
        overrides = [f"run.dir={config.parent / f'loop-{stage}-{len(counts)}'}", f"train.steps={steps}"]
        overrides += [f"parallel.zero={stage}", "train.batch=16", "checkpoint.every=9", "evaluate.every=9"]
        with on_pretended_gpu(0, 8) as pretended:
            pretended.ledger.peers = lambda _rank, own: [] if isinstance(own, list) else own
            with mock.patch.object(saving.state, "files", other_files(saving.state.files)):
                train(pretended, config, *overrides, "model.dropout=0.1", override)
            gpu, ledger = pretended.gpu.counts, pretended.ledger
            counts.append({name: gpu[name] for name in ("host_reads", "uploads", "synchronisations")})
            counts[-1] |= {"collectives": len(ledger.sent), "objects": sum(ledger.objects.values())}
    return {name: (counts[2][name] - counts[1][name]) / 4 for name in counts[0]}


@pytest.mark.parametrize(("packed", "stage"), [(True, 0), (False, 1)])
def test_the_loop_around_a_step_sends_and_waits_for_nothing(
    made: tiny.Tiny, packed: bool, stage: int
) -> None:
    """A step has one host read, and 5 and 8 collectives (step_counts.json). Short runs show the distance of the target in each
    step: another read and, where it is sharded, a collective. A batch is four tensors."""
    counts = run(of_a_step, 1, made.config, stage, f"data.pack={str(packed).lower()}", timeout_s=300)[0]
    assert counts == {
        "host_reads": 2,
        "uploads": 4,
        "synchronisations": 0,
        "collectives": 5 if stage == 0 else 9,
        "objects": 0,
    }


def whole_run_of_two(rank: int, size: int, config: Path, stage: int) -> None:
    """Two processes: without the pretended GPU, with it, and with it cut back and resumed."""
    from unsee_dist import run as runs
    from unsee_dist.config import load

    folder = config.parent / f"two-{stage}"
    common = [
        f"parallel.zero={stage}",
        "train.micro_batch=2",
        "model.dropout=0.1",
        "checkpoint.background=true",
    ]
    runs.train(load(str(config), [f"run.dir={folder}-cpu", *common]))
    with on_pretended_gpu(rank, size, carried=True) as pretended:
        for _ in range(2):
            train(pretended, config, f"run.dir={folder}-gpu", *common)
            if rank == 0 and not (folder.parent / f"two-{stage}-first").exists():
                shutil.copytree(f"{folder}-gpu", f"{folder}-first")
                cut_back(Path(f"{folder}-gpu"), 3)
            dist.barrier()


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 3])
def test_a_whole_run_of_two_real_ranks(made: tiny.Tiny, stage: int) -> None:
    run(whole_run_of_two, 2, made.config, stage, timeout_s=300)
    on_cpu, resumed, first = (made.folder / f"two-{stage}-{name}" for name in ("cpu", "gpu", "first"))
    assert tiny.history(resumed) == tiny.history(first)
    for ours, theirs in zip(tiny.history(resumed), tiny.history(on_cpu), strict=True):
        assert ours["step"] == theirs["step"]
        assert ours.get("loss", 0) == pytest.approx(theirs.get("loss", 0), rel=1e-4)
    weights = [(path / "final" / "model.safetensors").read_bytes() for path in (resumed, first)]
    assert weights[0] == weights[1]
