"""One trial: the training of `unsee train`, in a worker that a sweep has started, reporting each evaluation.

A trial is a run like any other: its folder lies in <sweep>/trials/<id>, and started again it goes on there.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsee_dist.errors import UserError
from unsee_dist.files.atomic import write_file
from unsee_dist.sweep.settings import Sweep
from unsee_dist.tracking import metrics_file
from unsee_dist.tracking.metrics_file import Line

if TYPE_CHECKING:
    from unsee_dist.distributed.world import World
    from unsee_dist.supervision.signals import StopSignal

WORST = (
    1e9  # of a collapsed or broken trial, with the sign that is worst: schedulers interpolate, so no infinity
)
TRIALS, OUTCOME, END = "trials", "outcome.json", "end"
LOOK_S = 0.5  # between looks whether the trial is to end


@dataclass(frozen=True)
class Place:
    """What a worker must know of the driver's process. environment: settings of trackers and libraries."""

    folder: str
    environment: Mapping[str, str]


def worth(scores: Mapping[str, float], metric: str, mode: str) -> float:
    """What a trial is compared by after an evaluation: the metric, or the worst there is when it means nothing."""
    value = scores.get(metric)
    if value is None or not math.isfinite(value) or scores.get("dev/collapsed"):
        return -WORST if mode == "max" else WORST
    return value


def train_trial(
    sweep: Sweep,
    place: Place,
    trial: str,
    point: Mapping[str, Any],
    report: Callable[[Mapping[str, float]], None],
) -> None:
    """Train the trial's run, or continue it; every rank of its worker group calls this.

    A mistake that all ranks know of (a collapse under `guard.collapse: stop`, say) ends the trial as the worst of all.
    Anything else rises: Ray starts the group again. Where the scheduler has given the trial up (`ask_to_end`), it ends
    after its step, with a checkpoint.
    """
    _enter(place)
    from unsee_dist.distributed.world import SharedUserError, join_world, wait_for_all
    from unsee_dist.run import train
    from unsee_dist.supervision.signals import Stopped, StopSignal
    from unsee_dist.supervision.watchdog import Watchdog

    metric, mode = sweep.settings.metric, sweep.settings.mode
    folder = trial_folder(sweep.folder, trial)
    config = sweep.config(dict(point), f"run.dir={folder}", f"run.name={sweep.settings.name}-{trial}")
    world = join_world()

    spent_s: list[float] = []

    def tell(step: int, scores: Mapping[str, float]) -> None:
        if step > 0:  # the untrained encoder is no result of a trial
            begun = time.perf_counter()
            report({"step": step, metric: worth(scores, metric, mode)})
            spent_s.append(time.perf_counter() - begun)

    watchdog = Watchdog(world, config.guard.timeout_s)
    watchdog.start()
    stop = StopSignal()
    threading.Thread(target=_listen, args=(folder / END, stop), name="end", daemon=True).start()
    try:
        _tell_again(world, folder, tell)
        train(config, stop, tell)
        _keep(world, folder, "complete", "", spent_s)
        wait_for_all(world)
    except Stopped:
        _keep(world, folder, "stopped", "", spent_s)
    except SharedUserError as mistake:
        _keep(world, folder, "broken", str(mistake), spent_s)
        report({"step": sweep.steps, metric: worth({}, metric, mode)})
    finally:
        watchdog.announce_exit("its trial has ended")


def ask_to_end(sweep: Path, trial: str) -> None:
    """The scheduler has given the trial up."""
    (trial_folder(sweep, trial) / END).touch()


def _listen(end: Path, stop: StopSignal) -> None:
    while not stop.requested:
        stop.requested = end.exists()
        time.sleep(LOOK_S)


def trial_folder(sweep: Path, trial: str) -> Path:
    return sweep / TRIALS / trial


def evaluations(run: Path) -> list[Line]:
    """The evaluation lines of a run after the first step, in order."""
    return metrics_file.evaluations(run / "metrics.jsonl", after=0)


def _enter(place: Place) -> None:
    """Stand where the driver stood: the configuration's paths are relative to that folder."""
    try:
        os.chdir(place.folder)
    except OSError as error:
        raise UserError(
            f"{place.folder} cannot be entered here ({error.strerror}): every node of the cluster must see the folder "
            "in which the sweep was started."
        ) from error
    os.environ |= place.environment


def _tell_again(world: World, folder: Path, tell: Callable[[int, Mapping[str, float]], None]) -> None:
    """The newest evaluation of a run that is continued: Tune may not have heard of it."""
    import torch.distributed as dist

    found = [evaluations(folder)[-1:] if world.rank == 0 else []]
    if world.size > 1:
        dist.broadcast_object_list(found, src=0)
    for line in found[0]:
        scores = {key: math.nan if value is None else value for key, value in line.items()}
        tell(int(line["step"]), scores)


def _keep(world: World, folder: Path, outcome: str, why: str, reports_s: Sequence[float]) -> None:
    """How a trial ended, and how long it waited for each of its reports to be taken."""
    if world.rank == 0 and folder.is_dir():
        told = {"outcome": outcome, "why": why, "reports_s": list(reports_s)}
        text = json.dumps(told, ensure_ascii=False)
        write_file(folder / OUTCOME, text + "\n")
