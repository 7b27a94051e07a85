"""Law 3 across layouts: a run handed from 2 ranks to 4, 1 and 3, each under another ZeRO stage, is one run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from integration import ranks
from integration import tiny as launch
from safetensors.torch import load_file

from unsee_dist.errors import ExitCode

# (ranks, ZeRO stage, workers, last step): tensors that a centred objective cannot see move by rounding alone
CHAIN = [(2, 1, 0, 5), (4, 3, 2, 10), (1, 0, 1, 15), (3, 2, 3, None)]
SHIFTS = (
    "attention.self.key.bias",
    "encoder.layer.1.output.LayerNorm.bias",
    "blocks.0.0.bias",
    "blocks.0.5.bias",
)


def state(folder: Path, step: int | None = None) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, whole, whatever layout wrote them."""
    saved = sorted((folder / "checkpoints").glob("step-*"))
    place = saved[-1] if step is None else folder / "checkpoints" / f"step-{step:08d}"
    micro_batches: dict[str, dict[int, torch.Tensor]] = {}
    for file in place.glob("rank-*.safetensors"):
        for key, value in load_file(file).items():
            name, _, start = key.rpartition("@")
            micro_batches.setdefault(name, {})[int(start)] = value
    whole = {name: torch.cat([by[start] for start in sorted(by)]) for name, by in micro_batches.items()}
    return whole | {f"buffers/{k}": v for k, v in load_file(place / "buffers.safetensors").items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "views", [(), ("data.views=crop", "data.crop_tokens=5", "train.micro_batch=3")], ids=["dropout", "crop"]
)
def test_a_run_handed_from_layout_to_layout_is_the_run_of_one_rank(
    tmp_path: Path, views: tuple[str, ...]
) -> None:
    tiny = launch.make(tmp_path, sentences=600)
    folder, alone = tmp_path / "chain", tmp_path / "alone"

    def layout(stage: int, workers: int, place: Path) -> list[str]:
        return [
            *(f"run.dir={place}", f"parallel.zero={stage}", f"data.workers={workers}", "checkpoint.keep=9"),
            *("train.batch=24", "train.steps=null", "train.epochs=1", "train.lr=1e-4", "model.dropout=0.1"),
            *(
                "objective.name=corinfomax",
                "objective.invariance=1",
                "objective.eps=1e-3",
                "evaluate.every=100",
            ),
            *views,
        ]

    for size, stage, workers, last in CHAIN:
        settings = layout(stage, workers, folder)
        handed = state(folder) if folder.exists() else None
        if handed is not None:  # asked to stop before its first step, it writes what it has read
            again = ranks.start(size, tiny.config, *settings, UNSEE_KILL_AT="build 0 0 SIGTERM")
            assert again.wait(240) == [ExitCode.STOPPED] * size, again.text()
            ours = state(folder)
            assert ours.keys() == handed.keys()
            for name, values in handed.items():
                assert torch.equal(ours[name], values), (size, stage, name)
        if last is None:
            ranks.start(size, tiny.config, *settings).succeed(240)
        else:
            stopped = ranks.start(size, tiny.config, *settings, UNSEE_KILL_AT=f"backward {last} 0 SIGTERM")
            assert stopped.wait(240) == [ExitCode.STOPPED] * size, stopped.text()

    ranks.start(1, tiny.config, *layout(0, 0, alone)).succeed(240)
    traced = launch.traced(folder)
    assert traced == launch.traced(alone)
    ids = [each for step in traced.values() for each in step]
    assert sorted(ids) == list(range(600))
    assert launch.losses(folder) == pytest.approx(launch.losses(alone), rel=1e-4)
    ours, truth = state(folder), state(alone)
    for name, values in truth.items():
        if name.startswith(("master/", "ema/")) and not name.endswith(SHIFTS):
            assert (ours[name] - values).abs().max() < 2e-5, name
