"""One trial: the training of `unsee train`, in a worker that a sweep has started, reporting each evaluation.

A trial is a run like any other: its folder is <sweep>/trials/<id>, and when it is started again it continues there.
It ends in one of three ways: an outcome (outcome.json), a failure (failures.py), or a killed process (neither).
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unsee_dist.errors import ends_process, file_error
from unsee_dist.files.records import RecordFile
from unsee_dist.metrics.names import COLLAPSED, STEP, dev
from unsee_dist.sweep.failures import write_failure
from unsee_dist.sweep.settings import Sweep
from unsee_dist.sweep.space import Point
from unsee_dist.sweep.study import ReportToTune
from unsee_dist.tracking import metrics_file
from unsee_dist.tracking.metrics_file import Line

if TYPE_CHECKING:
    from unsee_dist.distributed.world import World
    from unsee_dist.supervision.signals import StopSignal

# The score of a collapsed or broken trial, with the sign that is worst: schedulers interpolate, so no infinity.
WORST = 1e9
TRIALS, END = "trials", "end"
CHECK_EVERY_S = 0.5  # whether the trial is asked to end


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended that did not fail. broken: its run said why (a collapse, not finite), in `why`.

    reports_s: seconds that each of its reports took.
    """

    outcome: Literal["complete", "stopped", "broken"]
    why: str = ""
    reports_s: tuple[float, ...] = ()


OUTCOME = RecordFile(
    "outcome.json", TrialOutcome, version=2, remedy="Delete it; --resume trains the trial's rest."
)


@dataclass(frozen=True)
class DriverProcess:
    """What a worker takes over from the driver's process. environment: settings of trackers and libraries."""

    folder: str
    environment: Mapping[str, str]


def comparable_score(scores: Mapping[str, float], metric: str, mode: str) -> float:
    """What a trial is compared by after an evaluation: the metric, or the worst there is when it means nothing."""
    value = scores.get(metric)
    if value is None or not math.isfinite(value) or scores.get(dev(COLLAPSED)):
        return -WORST if mode == "max" else WORST
    return value


def train_trial(sweep: Sweep, driver: DriverProcess, trial: str, point: Point, report: ReportToTune) -> None:
    """Train the trial's run, or continue it; every rank of its worker group calls this.

    A run that the guard ends (a collapse under `guard.collapse: stop`, say) ends the trial as the worst of all. After
    `request_end` it ends after its step, with a checkpoint. Any other error (a full disk, a damaged shard) says nothing of
    the point: it is recorded (failures.py) and raised. A rank that was lost is not recorded: Ray starts the trial again.
    """
    _enter(driver)
    from unsee_dist.distributed.shared_errors import PeerFailed

    try:
        _train(sweep, trial, point, report)
    except (PeerFailed, RankLost):
        raise
    except Exception as error:
        write_failure(trial_folder(sweep.folder, trial), int(os.environ.get("RANK", "0")), error)
        raise


class RankLost(RuntimeError):
    """A collective has failed because another rank is gone."""


def _train(sweep: Sweep, trial: str, point: Point, report: ReportToTune) -> None:
    from unsee_dist.distributed.process_group import join_world
    from unsee_dist.distributed.world import wait_for_all
    from unsee_dist.run import train
    from unsee_dist.supervision.signals import Stopped, StopSignal
    from unsee_dist.supervision.watchdog import Watchdog
    from unsee_dist.training.loop import RunBroken

    metric, mode = sweep.settings.metric, sweep.settings.mode
    folder = trial_folder(sweep.folder, trial)
    config = sweep.config(dict(point), f"run.dir={folder}", f"run.name={sweep.settings.name}-{trial}")
    world = join_world()
    watchdog = Watchdog(world, config.guard.timeout_s)
    watchdog.start()
    reports_s: list[float] = []

    def report_evaluation(step: int, scores: Mapping[str, float]) -> None:
        if step > 0:  # the untrained encoder is no result of a trial
            begun = time.perf_counter()
            report({STEP: step, metric: comparable_score(scores, metric, mode)})
            reports_s.append(time.perf_counter() - begun)

    stop = StopSignal()
    stop.while_paused = watchdog.paused
    threading.Thread(target=_wait_for_end, args=(folder / END, stop), name="end", daemon=True).start()
    try:
        _report_newest(world, folder, report_evaluation)
        train(config, stop, report_evaluation)
        _write_outcome(world, folder, TrialOutcome("complete", reports_s=tuple(reports_s)))
        wait_for_all(world)
    except Stopped:
        _write_outcome(world, folder, TrialOutcome("stopped", reports_s=tuple(reports_s)))
    except RunBroken as broken:
        _write_outcome(world, folder, TrialOutcome("broken", str(broken), tuple(reports_s)))
        report({STEP: sweep.steps, metric: comparable_score({}, metric, mode)})
    except RuntimeError as error:
        if (sentence := watchdog.explain()) is not None:
            raise RankLost(sentence) from error
        raise
    finally:
        watchdog.announce_exit("its trial has ended")


def request_end(sweep: Path, trial: str) -> None:
    """Ask the workers of a trial to end it after their step: the scheduler has given it up."""
    (trial_folder(sweep, trial) / END).touch()


@ends_process
def _wait_for_end(end: Path, stop: StopSignal) -> None:
    while not stop.requested:
        with suppress(OSError):  # a file system that fails for a while
            stop.requested = end.exists()
        time.sleep(CHECK_EVERY_S)


def trial_folder(sweep: Path, trial: str) -> Path:
    return sweep / TRIALS / trial


def evaluations(run: Path) -> list[Line]:
    """The evaluation lines of a run after the first step, in order."""
    return metrics_file.evaluations(run / metrics_file.METRICS, after=0)


def untrained(run: Path) -> Line:
    """The evaluation of a trial before its first step; {} where there is none."""
    return next(
        (line for line in metrics_file.evaluations(run / metrics_file.METRICS) if line[STEP] == 0), {}
    )


def _enter(driver: DriverProcess) -> None:
    """Work in the folder of the driver, whose environment the worker takes over: the configuration's paths are relative
    to that folder. Never undone: the process is the trial's own."""
    try:
        os.chdir(driver.folder)
    except OSError as error:
        sentence = (
            f"{driver.folder} cannot be entered here ({error.strerror}): every node of the cluster must see the folder "
            "in which the sweep was started."
        )
        raise file_error(sentence, error) from error
    os.environ |= driver.environment


def _report_newest(
    world: World, folder: Path, report_evaluation: Callable[[int, Mapping[str, float]], None]
) -> None:
    """Report the newest evaluation of a run that is continued: a report before the kill may be lost."""
    import torch.distributed as dist

    newest: list[Sequence[Line]] = [evaluations(folder)[-1:] if world.rank == 0 else []]
    if world.size > 1:
        dist.broadcast_object_list(newest, src=0)
    for line in newest[0]:
        report_evaluation(int(line[STEP]), line)


def _write_outcome(world: World, folder: Path, outcome: TrialOutcome) -> None:
    if world.rank == 0 and folder.is_dir():
        OUTCOME.write(folder, outcome)
