"""The time that a sweep takes in addition to its trainings: of a report, and between two trials."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from unsee_dist.config import presets
from unsee_dist.config.unused import under
from unsee_dist.errors import ended
from unsee_dist.metrics.names import EFFECTIVE_RANK, LOSS, TIME, dev
from unsee_dist.sweep.trial import OUTCOME, TRIALS
from unsee_dist.tracking.metrics_file import METRICS, Line, read

STEPS, EVALUATIONS = 60, 6


def sweep_cost(config: str, overrides: Sequence[str], folder: Path) -> dict[str, float]:
    """A real sweep of three learning rates on a Ray cluster of this machine, one trial at a time on one rank.

    report_s: median time that a rank waits for its report; interval_s: median time between two; between_s: median
    time from a trial's last line to the next one's first step (worker group, torch, encoder and corpus).
    """
    folder.mkdir(parents=True)
    path = str(presets().get(config, Path(config)).resolve())
    (folder / "cost.yaml").write_text(f"extends: {json.dumps(path)}\n", encoding="utf-8")
    settings = [
        *(f"train.steps={STEPS}", f"evaluate.every={STEPS // EVALUATIONS}", f"sweep.dir={folder / 'sweep'}"),
        *(
            "sweep.search=grid",
            "sweep.scheduler=none",
            "sweep.at_once=1",
            f"sweep.metric={dev(EFFECTIVE_RANK)}",
        ),
        *("track.mlflow=false", "space.train.lr={choice: [1e-5, 2e-5, 3e-5]}"),
    ]
    program = "from unsee_dist.cli import main; main()"
    command = [sys.executable, "-c", program, "sweep", str(folder / "cost.yaml")]
    command += under(settings, overrides)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise ended(f"{' '.join(command)} failed: {done.stderr[-800:]}", done.returncode)
    trials = sorted((folder / "sweep" / TRIALS).iterdir(), key=lambda run: _lines(run)[0][TIME])
    return _costs(trials)


def summary(cost: dict[str, float]) -> str:
    share = cost["report_s"] / cost["interval_s"]
    return (
        f"sweep: a report takes {cost['report_s'] * 1000:.0f} ms of an interval of {cost['interval_s']:.1f} s "
        f"({share:.2%}); {cost['between_s']:.1f} s from a trial's end to the next one's first step"
    )


def _costs(trials: Sequence[Path]) -> dict[str, float]:
    reports: list[float] = []
    intervals: list[float] = []
    for run in trials:
        outcome = OUTCOME.read(run)
        reports += outcome.reports_s if outcome else ()
        times = [line[TIME] for line in _lines(run) if dev(EFFECTIVE_RANK) in line]
        intervals += [later - sooner for sooner, later in itertools.pairwise(times)]
    between = [
        next(line[TIME] for line in _lines(later) if LOSS in line) - _lines(sooner)[-1][TIME]
        for sooner, later in itertools.pairwise(trials)
    ]
    return {"report_s": median(reports), "interval_s": median(intervals), "between_s": median(between)}


def _lines(run: Path) -> list[Line]:
    return read(run / METRICS)
