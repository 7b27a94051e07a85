"""Whole runs on a pretended GPU: at 2, 8 and 64 pretended ranks, and on two real ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from integration import tiny
from pretending import on_pretended_gpu
from processes import run

SLOW = pytest.mark.slow
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
