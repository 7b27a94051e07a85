"""Many trainings on a Ray cluster: Ray Tune chooses the points, a Ray Train worker group trains each of them.

    Tune ── a point ──► a trial: a process on the head node ── TorchTrainer ──► `ranks` workers, each calls work(...)
      ▲                                                                                        │
      └────────────────────── report(numbers), by every rank, at each evaluation ◄─────────────┘

A trial that the scheduler gives up is not killed: `end` asks its workers to leave, which they do at a step's end with
a checkpoint. (Killed, it would keep its processors: Ray Train frees them through the dashboard, which may not run.)
A trial whose worker, node or own process dies is started again, `WorkerGroup.retries` times, and `work` finds its folder
with what the attempt before has written. `begin` may refuse an attempt: then the trial has failed. Tune's own state is
in `folder`/tune.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TypedDict, cast

from unsee_dist.distributed.environment import restored
from unsee_dist.log import quiet
from unsee_dist.metrics.names import STEP  # in every report: schedulers compare trials at the same step
from unsee_dist.sweep.space import Point
from unsee_dist.sweep.study import (
    Calls,
    End,
    Study,
    Suggest,
    TrialRefused,
    TrialState,
    TuneStatus,
    Watch,
    Work,
    WorkerGroup,
)
from unsee_dist.sweep.tune_storage import whole_files

if TYPE_CHECKING:
    from ray import tune
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial
    from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler
    from ray.tune.search.optuna import OptunaSearch

NAME = "tune"  # Tune's state: <folder>/tune
POINT = "point"  # of Tune's configuration where the points are given
POLL_S = "1"
# Tune and Train read these in the driver, the trials and the workers.
SETTINGS = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "2",  # a killed driver forgets at most the trials of so many seconds
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # csv, json and tensorboard of what metrics.jsonl has
    "TUNE_WARN_THRESHOLD_S": "10",
    "RAY_AIR_NEW_OUTPUT": "0",  # its tables: the ledger has ours
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": POLL_S,  # how often reports are collected
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",  # an import of torch on a busy disk takes minutes
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process a trial, for warnings of clouds we do not read
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
}


def search(
    study: Study,
    group: WorkerGroup,
    suggest: Suggest,
    points: Sequence[Point],
    calls: Calls,
    goes_on: bool,
) -> None:
    """Run, or where it `goes_on` (tune_state.is_there) continue, the trials of `study`: `points` where given, else what `suggest` takes
    from an Optuna trial.

    `calls` must be picklable. `watch` is called with all trials after each turn. SIGTERM, SIGINT, SIGUSR1 or a True of
    `watch` end the search with every unfinished trial ready to be continued. The cluster must be connected.
    """
    # Tune prints the traceback of each attempt: `watch` has the error of what failed in the end.
    with (
        _environment(SETTINGS),
        quiet("ray.tune", level=logging.CRITICAL),
        quiet("optuna", level=logging.WARNING),
    ):
        searcher = None if points else _searcher(study, suggest)
        before = signal.signal(signal.SIGTERM, _as_interrupt)
        try:
            _tuner(study, group, searcher, points, calls, goes_on).fit()
        finally:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Variables of this process for the time of the block."""
    with restored(settings):
        os.environ |= settings
        yield


def _tuner(
    study: Study,
    group: WorkerGroup,
    searcher: OptunaSearch | None,
    points: Sequence[Point],
    calls: Calls,
    goes_on: bool,
) -> tune.Tuner:
    """The search that `study.folder` holds, or a new one."""
    from ray import tune

    folder = study.folder.resolve()
    trainable = _trainable(group, calls, folder / "train")
    if goes_on:
        return tune.Tuner.restore(
            str(folder / NAME),
            trainable,
            resume_unfinished=True,
            resume_errored=True,
            storage_filesystem=whole_files(),
        )
    return tune.Tuner(
        trainable,
        param_space={POINT: tune.grid_search([dict(point) for point in points])} if points else None,
        tune_config=_tune_config(study, searcher, calls.end),
        run_config=tune.RunConfig(
            name=NAME,
            storage_path=str(folder),
            storage_filesystem=whole_files(),
            verbose=0,
            callbacks=[_watching(calls.watch)],
            failure_config=tune.FailureConfig(max_failures=group.retries),
        ),
    )


def _tune_config(study: Study, searcher: OptunaSearch | None, end: End) -> tune.TuneConfig:
    from ray import tune

    return tune.TuneConfig(
        metric=study.metric,
        mode=study.mode,
        search_alg=searcher,
        scheduler=_scheduler(study, end),
        num_samples=study.trials if searcher else 1,
        max_concurrent_trials=study.at_once,
        time_budget_s=study.hours * 3600 if study.hours else None,
        trial_name_creator=_id_of,
        trial_dirname_creator=_id_of,
    )


def _id_of(trial: Trial) -> str:
    return str(trial.trial_id)


def _searcher(study: Study, suggest: Suggest) -> OptunaSearch:
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    sampler = (
        # constant_liar: trials that run side by side do not all try the same place
        optuna.samplers.TPESampler(
            seed=study.seed, n_startup_trials=max(5, study.trials // 4), constant_liar=True
        )
        if study.search == "tpe"
        else optuna.samplers.RandomSampler(seed=study.seed)
    )
    return OptunaSearch(suggest, metric=study.metric, mode=study.mode, sampler=sampler)


def _scheduler(study: Study, end: End) -> TrialScheduler:
    from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule

    if study.scheduler == "asha":
        return _by_request(AsyncHyperBandScheduler, end)(
            time_attr=STEP,
            max_t=study.steps + 1,  # a trial that has come to its end is not "stopped" there
            grace_period=study.grace,
            reduction_factor=study.reduction,
        )
    if study.scheduler == "median":
        return _by_request(MedianStoppingRule, end)(time_attr=STEP, grace_period=study.grace)
    return FIFOScheduler()


def _by_request(
    kind: type[AsyncHyperBandScheduler | MedianStoppingRule], end: End
) -> Callable[..., TrialScheduler]:
    """The scheduler, which asks a trial to end where Ray's would have it killed."""

    class EndsByRequest(kind):  # type: ignore[misc, valid-type]  # one of two schedulers of Ray
        def on_trial_result(
            self, tune_controller: TuneController, trial: Trial, result: dict[str, object]
        ) -> str:
            decision = super().on_trial_result(tune_controller, trial, result)
            if decision != self.STOP:
                return str(decision)
            end(trial.trial_id)
            return str(self.CONTINUE)

    return EndsByRequest


def _trainable(group: WorkerGroup, calls: Calls, storage: Path) -> Callable[[Point], None]:
    """What Tune runs for a point: it trains in a worker group of its own and passes the reports on."""
    from ray import tune

    from unsee_dist.sweep.placement import record_placement, remove_placement

    def trial(config: Point) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
        from ray.tune.integration.ray_train import TuneReportCallback

        os.environ |= SETTINGS  # of a process that Ray made for this trial: never restored
        name = tune.get_context().get_trial_id()
        placement = storage / f"{name}.placement"
        remove_placement(placement)  # of this trial's process before, if it was killed
        if why := calls.begin(name):
            raise TrialRefused(why)
        TorchTrainer(
            _worker,
            train_loop_config=dict(WorkerConfig(work=calls.work, trial=name, point=_point(config))),
            torch_config=TorchConfig(backend="nccl" if group.gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=group.ranks, use_gpu=group.gpus > 0, resources_per_worker=group.bundle()
            ),
            run_config=RunConfig(
                name=name,
                storage_path=str(storage),
                failure_config=FailureConfig(max_failures=0),  # Tune starts the trial again, and counts
                callbacks=[TuneReportCallback(), record_placement(placement)],  # type: ignore[list-item]  # Ray's type is narrower than its check
            ),
        ).fit()

    # No processor of its own: trials that wait would keep the workers of others from starting. On the head node,
    # so that it outlives the nodes its workers are on.
    return tune.with_resources(trial, {"node:__internal_head__": 0.001})


class WorkerConfig(TypedDict):
    """What Ray Train gives to each worker of a trial."""

    work: Work
    trial: str
    point: Point


def _worker(config: dict[str, object]) -> None:
    import ray.train

    given = cast("WorkerConfig", config)
    given["work"](given["trial"], given["point"], lambda numbers: ray.train.report(dict(numbers)))


def _watching(watch: Watch) -> tune.Callback:
    from ray.tune import Callback

    class Watching(Callback):
        """Calls `watch` with all trials after each turn of Tune's loop."""

        def __init__(self) -> None:
            self._errors: dict[str, str] = {}  # of trials that are over, read once

        def on_step_end(self, iteration: int, trials: list[Trial], **_: object) -> None:  # noqa: ARG002  (Ray calls it by name)
            for trial in trials:
                if trial.status == "ERROR" and not self._errors.get(trial.trial_id):
                    self._errors[trial.trial_id] = read_error(trial)
            if watch([_state(trial, self._errors.get(trial.trial_id)) for trial in trials]):
                os.kill(os.getpid(), signal.SIGINT)

    return Watching()


def read_error(trial: Trial) -> str:
    """What ended a trial; "" while it cannot be read.

    Ray copies the error to the trial's folder in the background, pickled and as text: it is read in the middle of that,
    too, and then again at the next turn.
    """
    for read in (trial.get_pickled_error, trial.get_error):
        with suppress(EOFError, pickle.UnpicklingError, OSError):
            error = read()
            if error is not None:
                return str(error).strip()
    return ""


def _state(trial: Trial, error: str | None) -> TrialState:
    last = {
        name: value for name, value in (trial.last_result or {}).items() if isinstance(value, (int, float))
    }
    return TrialState(trial.trial_id, cast("TuneStatus", trial.status), _point(trial.config), last, error)


def _point(config: Point) -> Point:
    return dict(config.get(POINT, config))


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    """Tune saves its state and ends at an interrupt."""
    os.kill(os.getpid(), signal.SIGINT)
