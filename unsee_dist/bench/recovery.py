"""The pause of a save, and the time from a kill to the first new step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from unsee_dist.config.unused import under
from unsee_dist.errors import UserError
from unsee_dist.metrics.names import TIME
from unsee_dist.supervision.phases import KILL_AT
from unsee_dist.tracking.metrics_file import METRICS, training_lines
from unsee_dist.training.loop import Training, save

SAVES = 3


def save_cost(run: Training, step_s: float) -> dict[str, float]:
    """Seconds that a save interrupts training, in the background and not, and the first as a share of the time between two
    saves."""
    pauses: dict[bool, list[float]] = {True: [], False: []}
    for background, seconds in pauses.items():
        run.saver.background = background
        for _ in range(SAVES):
            run.saver.saved = None
            started = time.perf_counter()
            save(run)
            seconds.append(time.perf_counter() - started)
            run.saver.wait()
    pause = median(pauses[True])
    return {
        "save_pause_s": pause,
        "save_foreground_s": median(pauses[False]),
        "save_share": pause / (run.checkpoint_every * step_s),
    }


def recovery_s(config: str, overrides: Sequence[str], folder: Path) -> float:
    """Kill a run of one process in step 6, start the same command: seconds until its first new step is done.

    Start-up is most of it: python, torch and the encoder; then verifying and reading the checkpoint of step 5.
    """
    settings = [
        "train.steps=12",
        "checkpoint.every=5",
        "evaluate.every=12",
        f"run.dir={folder}",
        "track.mlflow=false",
    ]
    script = str(Path(__file__).resolve().parent.parent / "train.py")
    command = [sys.executable, script, "--config", config, *under(settings, overrides)]
    killed = subprocess.run(
        command, env=os.environ | {KILL_AT: "forward 6 0"}, capture_output=True, check=False
    )
    if killed.returncode != -signal.SIGKILL:
        raise UserError(f"{' '.join(command)} failed: {killed.stderr.decode()[-500:]}")
    started = time.time()
    subprocess.run(command, capture_output=True, check=True)
    first = next(line for line in training_lines(folder / METRICS) if line[TIME] > started)
    return float(first[TIME] - started)


def summary(seconds: float) -> str:
    return f"recovery: {seconds:.1f} s from a kill to the first new step, start-up included"
