"""From a configuration to a trained encoder: all objects of a run and how they are connected, on one page.

shards -> stream -> engine(online, projector, target, objective) -> loop -> best/, final/
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist

from unsee_dist.config import RunConfig
from unsee_dist.config.sections import every_steps
from unsee_dist.distributed.engine import Engine
from unsee_dist.distributed.process_group import join_world
from unsee_dist.distributed.replica import Replica
from unsee_dist.distributed.shared_errors import share_errors
from unsee_dist.distributed.world import World, from_rank_0, print_on_rank_0, wait_for_all
from unsee_dist.errors import report as report_error
from unsee_dist.errors import writing
from unsee_dist.evaluation.development import warnings
from unsee_dist.files.atomic import atomic_folder, recover_folder
from unsee_dist.files.contents import owner_name
from unsee_dist.inputs import open_inputs, start_request, tokenise_ahead
from unsee_dist.masking import masked, published
from unsee_dist.model.checked import load_once
from unsee_dist.model.compiled import compile_encoders
from unsee_dist.model.target import Target
from unsee_dist.model.unsee import Unsee
from unsee_dist.publish.sentence_transformers import point_to, write_encoder
from unsee_dist.supervision.ownership import owned_run
from unsee_dist.supervision.phases import enter_phase
from unsee_dist.supervision.signals import Stopped, StopSignal
from unsee_dist.tracking import record
from unsee_dist.tracking.environment import describe, note_of_run, of_this_start
from unsee_dist.tracking.mlflow_model import ModelDescription
from unsee_dist.tracking.mlflow_run import CorpusDescription
from unsee_dist.tracking.note import note_of, write_note
from unsee_dist.tracking.recorder import RunRecorder
from unsee_dist.training.beginning import corpus_name, print_first_line, print_waiting
from unsee_dist.training.checkpoint import resume
from unsee_dist.training.checkpoint.manifest import Manifest
from unsee_dist.training.checkpoint.saving import Saver
from unsee_dist.training.checkpoint.state import full_weights
from unsee_dist.training.embed import embedder
from unsee_dist.training.ending import Ending
from unsee_dist.training.guard import with_verdict
from unsee_dist.training.loop import RunBroken, Training, console_every
from unsee_dist.training.loop import train as train_loop
from unsee_dist.training.progress import Progress
from unsee_dist.training.start import EXPORTS, StartRequest, keep_record, plan_start

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ReportEvaluation = Callable[[int, dict[str, float]], None]


def train(config: RunConfig, stop: StopSignal | None = None, report: ReportEvaluation | None = None) -> None:
    """Train, or continue, the run in `config.run.dir`. Every rank calls it. UserError: a mistake of the user.

    report: called with the step and the scores of each evaluation, on every rank (a sweep uses it). stop: signals, where
    the caller handles them already. Raises Stopped after a signal, with a checkpoint of the last step.
    """
    world, own_signal = join_world(), StopSignal() if stop is None else None
    try:
        opening = f"{corpus_name(config.data)} and {masked(config.model.encoder)}"
        print_waiting(world, f"{config.run.name}: opening {opening}")
        with owned_run(world, Path(config.run.dir)):
            _train(build(config, world, stop or own_signal), config, report)
        wait_for_all(
            world
        )  # the folder is released: whoever looks at it on another rank finds a complete run
    finally:
        if own_signal is not None:
            own_signal.close()


def _train(run: Training, config: RunConfig, report: ReportEvaluation | None) -> None:
    if report is not None:
        run = replace(run, evaluate=partial(_evaluate_and_report, run, report))
    begun = config.model.encoder if run.progress.started == 0 else "the checkpoint that the run began with"
    ending, world = Ending(run.progress, run.folder, begun), run.engine.world
    if run.complete:
        print_on_rank_0(
            world,
            f"{run.folder} is complete, nothing to do: {run.progress.step} of {run.steps} steps. It holds {ending.contents()}",
        )
    else:
        sentences = f"{run.steps} steps of {config.train.batch} sentences"
        print_on_rank_0(world, f"{config.run.name}: {sentences}, see {run.folder}")
        try:
            train_loop(run)
        except BaseException as error:
            run.recorder.close("KILLED" if isinstance(error, Stopped) else "FAILED")
            raise
    _print_ending(
        run, ending, write_page=report is None and not run.complete
    )  # a sweep has a page of its own


def _evaluate_and_report(run: Training, report: ReportEvaluation) -> dict[str, float]:
    scores = from_rank_0(run.engine.world, run.evaluate())
    report(run.progress.step, scores)
    return scores


def build(config: RunConfig, world: World, stop: StopSignal | None = None) -> Training:
    """All objects of a run, restored from its newest checkpoint when there is one. Collective."""
    enter_phase("build")
    folder = Path(config.run.dir)
    stop = stop or StopSignal()
    stop.set_grace(config.checkpoint.grace_s)
    seed_everything(config.seed)
    loaded = load_once(config.model, world)
    tokenise_ahead(config, world, loaded.tokenizer)
    with share_errors(world):  # a file that is missing on one host must not leave the others waiting
        inputs = open_inputs(config, world, loaded)
        with writing(f"run.dir = {folder}", "Write another one."):
            folder.mkdir(parents=True, exist_ok=True)
    request = start_request(config, inputs)
    print_first_line(config, world, inputs.shards.sentences)
    start = plan_start(world, request)
    for sentence in start.sentences:
        print_on_rank_0(world, f"{folder}: {sentence}")

    engine = Engine(
        inputs.model,
        world,
        config.parallel.stage(world.size),
        config.parallel.precision,
        weight_decay=config.train.weight_decay,
        clip=config.train.clip or 0.0,
    )
    target = build_target(engine)
    progress = Progress()

    def restore(checkpoint: Path) -> Manifest:
        """Restore everything but the metrics from a checkpoint. Returns its manifest."""
        manifest = resume.restore(checkpoint, engine, target)
        progress.restore(manifest.progress)
        if not start.complete:
            print_on_rank_0(world, f"continuing {folder} after step {progress.step} ({checkpoint.name})")
        return manifest

    recover_exports(folder, world)
    manifest = restore(start.checkpoint) if start.checkpoint else None
    if not start.own:
        progress.begin_here()
    with share_errors(world):
        if world.rank == 0:
            keep_record(config, start, progress.step, world.size, of_this_start(world.device))
        recorder = open_recorder(
            request, world, progress, manifest.mlflow_run if manifest and start.own else None
        )

    def rewind() -> None:
        checkpoint, _ = resume.find_checkpoint(world, folder, "auto")
        if checkpoint is None:
            raise RunBroken("There is no checkpoint to return to yet. Lower train.lr or checkpoint.every.")
        restore(checkpoint)
        recorder.rewind(progress.step)

    embed = embedder(
        engine, inputs.tokenizer, config.model.max_tokens, inputs.share_rows, stop, recorder.evaluating
    )
    return Training(
        config=config,
        steps=request.steps,
        complete=start.complete,
        progress=progress,
        engine=engine,
        target=target,
        compilations=compile_encoders(engine.module, config.model.encoder)
        if config.parallel.compile
        else None,
        stream=inputs.stream,
        recorder=recorder,
        saver=Saver(world, config.checkpoint.background),
        stop=stop,
        folder=folder,
        identity=request.identity,
        evaluate=lambda: with_verdict(config.guard, inputs.development(embed)),
        baseline=inputs.development.baseline,
        export=exporter(config, engine, inputs.tokenizer, progress),
        rewind=rewind,
    )


def exporter(
    config: RunConfig, engine: Engine[Unsee], tokenizer: PreTrainedTokenizerFast, progress: Progress
) -> Callable[[str], None]:
    """A function that writes the online encoder to a folder of the run, by its name, with what its last evaluation says.
    Collective, as its calls are."""
    # a group of its own: a save may be gathering in the background meanwhile
    group = dist.new_group(backend="gloo") if engine.world.size > 1 else None

    def export(name: str) -> None:
        weights = full_weights(engine, "online", group)
        with share_errors(engine.world, group):
            if engine.world.rank == 0:
                place = Path(config.run.dir) / name
                with atomic_folder(place, owner_name(place.parent)) as new:
                    write_encoder(
                        new, weights, engine.module.online.config, tokenizer,
                        config.model.pooling, config.model.max_tokens,
                    )  # fmt: skip
                    write_note(new, note_of(name, progress.step, progress.scores))
                point_to_export(place.parent)

    return export


def recover_exports(folder: Path, world: World) -> None:
    """Finish the replacement of best/ and final/ where a kill interrupted it. Collective."""
    with share_errors(world):
        if world.rank == 0:
            for name in EXPORTS:
                recover_folder(folder / name)
            point_to_export(folder)


def point_to_export(folder: Path) -> None:
    """Let `SentenceTransformer(folder)` load the run's best/, else its final/."""
    for name in EXPORTS:
        if (folder / name).is_dir():
            return point_to(folder, name)
    return None


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


def build_target(engine: Engine[Unsee]) -> Target | None:
    """The EMA of the weights that the frozen target network copies; None without a target network."""
    frozen = engine.module.frozen()
    if not frozen:
        return None
    shards = [shard for shard in engine.shards if shard.name in frozen]
    return Target(shards, Replica(shards, frozen, engine.stage, engine.world.size, engine.writes))


def seed_everything(seed: int) -> None:
    """Seed the generators, so that new weights are equal on every rank; each step then derives its own generator."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    # tokenizers would start a thread for each core in every rank, and warn when workers fork
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _print_ending(run: Training, ending: Ending, write_page: bool) -> None:
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
    best = progress.best if name == "best" else None
    step, scores = (best.step, best.scores) if best else (progress.step, progress.scores)
    params = {"step": str(step), "encoder": published(model.encoder), "pooling": model.pooling}
    params |= {"max_tokens": str(model.max_tokens)} | {key: f"{value:g}" for key, value in scores.items()}
    folder = {f"unsee.{name}": published(str((run.folder / name).absolute()))}
    return ModelDescription(run.config.run.name, step, params, folder)


def _write_page(run: Training, baseline: Mapping[str, float]) -> None:
    """report.html for MLflow, on rank 0: seconds, since it opens no encoder. The run is complete, whatever becomes of it."""
    from unsee_dist.report.of_runs import report_ended

    run.recorder.flush()
    try:
        report_ended(run.folder, baseline)
    except Exception as error:
        report_error(error, "report.html")
        run.recorder.warn(f"the run is complete, without its page. Later: unsee report {run.folder}")
