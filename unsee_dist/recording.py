"""What a run tells its trackers: who it is when it begins, and what came of it when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from unsee_dist.config.sections import every_steps
from unsee_dist.distributed.world import World
from unsee_dist.errors import report as report_error
from unsee_dist.evaluation.development import warnings
from unsee_dist.masking import published
from unsee_dist.tracking import record
from unsee_dist.tracking.environment import describe, note_of_run
from unsee_dist.tracking.mlflow_model import ModelDescription
from unsee_dist.tracking.mlflow_run import CorpusDescription
from unsee_dist.tracking.note import BEST_EXPORT
from unsee_dist.tracking.recorder import PAGE, RunRecorder
from unsee_dist.training.ending import Ending
from unsee_dist.training.loop import Training, console_every
from unsee_dist.training.progress import Progress
from unsee_dist.training.start import StartRequest


def open_recorder(
    request: StartRequest, world: World, progress: Progress, mlflow_run: str | None
) -> RunRecorder:
    """The recorder of a run, its files truncated to the step of `progress`. MLflow is given the run's first settings, and
    what later starts changed as a tag."""
    config, folder, steps = request.config, request.folder, request.steps
    recorder = RunRecorder(
        folder,
        world.rank,
        steps=steps,
        first=progress.step,
        every=config.track.every,
        console_every=console_every(steps),
    )
    recorder.will_pause(
        every_steps(config.evaluate.every, steps), every_steps(config.checkpoint.every, steps)
    )
    recorder.expect(progress.lines)
    if config.data.trace:
        recorder.keep_trace(world.size)
    if config.track.tensorboard:
        recorder.write_tensorboard()
    if config.track.mlflow and world.rank == 0:
        first = record.first_settings(folder) or config
        note, corpus = note_of_run(first, steps, request.sentences), describe_corpus(request)
        tree = first.model_dump(mode="json")
        recorder.send_to_mlflow(describe(first.run.name, tree, note=note, corpus=corpus), mlflow_run)
        if changes := record.changes(folder):
            recorder.tag("changes", "; ".join(changes))
    return recorder


def describe_corpus(request: StartRequest) -> CorpusDescription:
    """What the run reads, for MLflow."""
    data = request.config.data
    source = published(data.mix or data.shards)
    return CorpusDescription(Path(source).name, request.identity.corpus, source, request.sentences)


def print_ending(run: Training, ending: Ending, write_page: bool) -> None:
    recorder, progress = run.recorder, run.progress
    baseline = run.baseline() if run.engine.world.rank == 0 else {}
    recorder.summary(
        ending.columns | ({"TF-IDF": baseline} if baseline else {}),
        {name: f"{run.folder / name} ({what})" for name, what in ending.folders.items()},
        ending.next,
    )
    for sentence in (*warnings(progress.scores, baseline), *ending.warnings):
        recorder.warn(sentence)
    for name in ending.folders:
        recorder.tag(name, str(run.folder / name))
    recorder.conclude(ending.verdict, _describe_model(run, ending))
    if write_page and recorder.in_mlflow and find_spec("matplotlib"):
        _write_page(run, baseline)
    recorder.close()


def _describe_model(run: Training, ending: Ending) -> ModelDescription | None:
    """The encoder of best/, else of final/, for MLflow; None where neither can be used."""
    name, progress, model = next(iter(ending.folders), None), run.progress, run.config.model
    if name is None:
        return None
    best = progress.best if name == BEST_EXPORT else None
    step, scores = (best.step, best.scores) if best else (progress.step, progress.scores)
    params = {"step": str(step), "encoder": published(model.encoder), "pooling": model.pooling}
    params |= {"max_tokens": str(model.max_tokens)} | {key: f"{value:g}" for key, value in scores.items()}
    folder = {f"unsee.{name}": published(str((run.folder / name).absolute()))}
    return ModelDescription(run.config.run.name, step, params, folder)


def _write_page(run: Training, baseline: Mapping[str, float]) -> None:
    """report.html for MLflow, on rank 0: seconds, since it opens no encoder. The run is complete, even if this fails."""
    from unsee_dist.report.of_runs import report_ended

    run.recorder.flush()
    try:
        report_ended(run.folder, baseline)
    except Exception as error:
        report_error(error, PAGE)
        run.recorder.warn(f"the run is complete, without its page. Later: unsee report {run.folder}")
