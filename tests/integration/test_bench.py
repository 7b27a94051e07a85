"""`unsee bench` times the real step: its parts add up to the step, on a real run."""

from __future__ import annotations

import json
import sys

from integration import tiny as launch
from integration.tiny import Tiny


def test_the_parts_of_a_real_step_add_up(tiny: Tiny) -> None:
    arguments = [
        "-m",
        "unsee_dist.bench.step",
        str(tiny.config),
        f"run.dir={tiny.folder / 'bench'}",
        "track.mlflow=false",
    ]
    done = launch.run([sys.executable, *arguments], timeout_s=240)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    parts = sum(ms for name, ms in row["ms"].items() if name != "step")
    assert 0.3 * row["ms"]["step"] < parts < 1.2 * row["ms"]["step"], row[
        "ms"
    ]  # medians of parts, on a busy machine
    assert all(
        row["ms"][name] > 0 for name in ("online", "target", "projector", "objective", "backward", "finish")
    )
    assert row["sentences_per_s"] > 0
