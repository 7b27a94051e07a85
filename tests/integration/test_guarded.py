"""The guard in running processes: back to a checkpoint once, and then a stop with a sentence; a collapse that ends a run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from integration import ranks
from integration import tiny as launch
from integration.tiny import REPOSITORY, Tiny

POISON = """
import os
from unsee_dist.distributed.engine import Engine
from unsee_dist.supervision.phases import current_phase
reduce, poisoned = Engine.reduce, set()
def finishing(self, values):
    means, norm = reduce(self, values)
    step = current_phase().step
    if step in {STEPS} and ({ALWAYS} or step not in poisoned):
        poisoned.add(step)
        return [float("nan"), *means[1:]], norm
    return means, norm
Engine.reduce = finishing
"""


def poison(folder: Path, steps: str, always: bool) -> str:
    """A PYTHONPATH under which these steps come out as NaN: the first time, or always."""
    site = folder / f"poison-{always}-{len(steps)}"
    site.mkdir()
    code = POISON.replace("{STEPS}", steps).replace("{ALWAYS}", str(always))
    (site / "sitecustomize.py").write_text(code, encoding="utf-8")
    return f"{site}{os.pathsep}{REPOSITORY}"


GUARDED = ("train.steps=10", "checkpoint.every=3", "evaluate.every=5", "guard.skips=2", "model.dropout=0.1")


def test_a_fault_that_comes_from_the_data_is_passed_over_and_not_met_again(tiny: Tiny) -> None:
    """Steps 5 and 6 are NaN each time they are trained: trained again, as they would be, the run would stop."""
    plain, back = tiny.folder / "unpoisoned", tiny.folder / "poisoned"
    ranks.start(1, tiny.config, f"run.dir={plain}", *GUARDED).succeed()
    path = poison(tiny.folder, "{5, 6}", True)
    # with a worker process, which has read ahead of the steps that are passed over
    poisoned = ranks.start(1, tiny.config, f"run.dir={back}", "data.workers=1", *GUARDED, PYTHONPATH=path)
    poisoned.succeed()
    printed = " ".join(poisoned.text().split())
    assert "step 5 skipped on all ranks" in printed
    assert "returning to the last checkpoint, once, and going on after step 6" in printed
    assert "steps 4 to 6 are passed over: 24 sentences of this epoch are not trained on" in printed
    before, after = launch.history(plain), launch.history(back)
    assert [line for line in after if line["step"] <= 3] == [line for line in before if line["step"] <= 3]
    trained = [line for line in after if "loss" in line and line["step"] > 3]
    assert [line["step"] for line in trained] == [7, 8, 9, 10]
    assert {(line["passed_over"], line["skipped"]) for line in trained} == {(3, 3)}
    seen = launch.traced(plain)
    assert launch.traced(back) == {step: ids for step, ids in seen.items() if step not in (4, 5, 6)}
    manifest = json.loads((back / "checkpoints" / "step-00000010" / "manifest.json").read_text())
    assert (manifest["progress"]["passed_over"], manifest["progress"]["guard"]["rollbacks"]) == (3, 1)


@pytest.mark.parametrize(
    "instant",
    [
        pytest.param("save.begin 6 0", marks=pytest.mark.slow),
        "forward 7 0",
        pytest.param("backward 9 0", marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_after_a_return_to_a_checkpoint_is_the_run_that_was_not(
    tiny: Tiny, tmp_path: Path, instant: str
) -> None:
    path = poison(tmp_path, "{5, 6}", True)
    through, killed = tmp_path / "through", tmp_path / "killed"
    ranks.start(1, tiny.config, f"run.dir={through}", *GUARDED, PYTHONPATH=path).succeed()
    kill = {"PYTHONPATH": path, "UNSEE_KILL_AT": instant}
    assert ranks.start(1, tiny.config, f"run.dir={killed}", *GUARDED, **kill).wait() == [-9]
    ranks.start(1, tiny.config, f"run.dir={killed}", *GUARDED, PYTHONPATH=path).succeed()
    assert launch.history(killed) == launch.history(through)
    weights = [(folder / "final" / "model.safetensors").read_bytes() for folder in (killed, through)]
    assert weights[0] == weights[1]


def test_skips_that_come_back_stop_the_run_on_all_ranks(tiny: Tiny) -> None:
    settings = (
        "train.steps=10",
        "checkpoint.every=3",
        "guard.skips=2",
        f"run.dir={tiny.folder / 'poisoned-always'}",
    )
    stopped = ranks.start(2, tiny.config, *settings, PYTHONPATH=poison(tiny.folder, "{5, 6, 7, 8}", True))
    assert stopped.wait() == [2, 2], stopped.text()
    assert "again after returning to a checkpoint. Lower train.lr" in stopped.text()
    assert stopped.text().count("Lower train.lr") == 1
    assert "Traceback" not in stopped.text()


COLLAPSING = (
    # one network, nothing that spreads the embeddings, and dropout that only a constant answer is blind to
    *("target.kind=online", "projector.blocks=0", "objective.variance=0", "objective.covariance=0"),
    *("model.dropout=0.3", "train.lr=3e-2", "train.warmup=0", "train.steps=40", "evaluate.every=5"),
    "parallel.zero=0",
)


def test_a_run_that_collapses_is_told_and_stopped_where_that_is_asked_for(tiny: Tiny) -> None:
    folder = f"run.dir={tiny.folder / 'collapsed'}"
    stopped = ranks.start(1, tiny.config, folder, *COLLAPSING, "guard.collapse=stop")
    assert stopped.wait() == [2], stopped.text()
    assert "The embeddings have collapsed: effective rank" in stopped.text()
    assert "raise the objective's variance or covariance weight, or use target.kind=ema" in stopped.text()
    assert "Traceback" not in stopped.text()
    lines = launch.history(tiny.folder / "collapsed")
    assert max(line["step"] for line in lines) < 40
    warned = ranks.start(1, tiny.config, f"run.dir={tiny.folder / 'warned'}", *COLLAPSING)
    warned.succeed()
    assert "The embeddings have collapsed" in warned.text()
    assert "raise the objective's variance" in warned.text()
    assert "this run has no usable encoder" in warned.text()
    assert "final: " not in warned.text()  # offered by no line
    assert "SentenceTransformer" not in warned.text()
    note = json.loads((tiny.folder / "warned" / "final" / "unsee.json").read_text())
    assert note["collapsed"].startswith("the embeddings have collapsed (effective rank")
    assert note["collapsed"] in (tiny.folder / "warned" / "final" / "README.md").read_text().replace(
        "The em", "the em"
    )


STRUCK = """
from unsee_dist.distributed.engine import Engine
from unsee_dist.supervision.phases import current_phase
call = Engine.__call__
def calling(self, *args, **kwargs):
    if current_phase().step == 60 and current_phase().phase == "forward":
        for weight in self.module.projector.parameters():
            weight.data.mul_(30)
    return call(self, *args, **kwargs)
Engine.__call__ = calling
"""


def test_a_loss_that_jumps_is_said_with_its_size_and_one_that_does_not_is_not(tiny: Tiny) -> None:
    """At step 60 the projector's weights are thirty times what they were, as flipped bits in memory would make them."""
    settings = (
        "train.steps=64",
        "evaluate.every=64",
        "checkpoint.every=64",
        "parallel.zero=0",
        "train.lr=1e-4",
    )
    site = tiny.folder / "struck"
    site.mkdir()
    (site / "sitecustomize.py").write_text(STRUCK, encoding="utf-8")
    path = f"{site}{os.pathsep}{REPOSITORY}"
    struck = ranks.start(1, tiny.config, f"run.dir={tiny.folder / 'spiked'}", *settings, PYTHONPATH=path)
    struck.succeed()
    warnings = [line for line in struck.text().splitlines() if "deviations above its running mean" in line]
    assert warnings
    assert "step 60: loss " in warnings[0]
    assert "(guard.spike = 8)" in struck.text()
    calm = ranks.start(1, tiny.config, f"run.dir={tiny.folder / 'calm'}", *settings)
    calm.succeed()
    assert "deviations above" not in calm.text()
