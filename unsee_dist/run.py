"""From a configuration to a trained encoder: all objects of a run and how they are connected, on one page.

shards -> stream -> engine(online, projector, target, objective) -> loop -> best/, final/
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from unsee_dist.config import RunConfig
from unsee_dist.distributed.engine import Engine
from unsee_dist.distributed.process_group import join_world
from unsee_dist.distributed.replica import Replica
from unsee_dist.distributed.shared_errors import share_errors
from unsee_dist.distributed.world import World, from_rank_0, print_on_rank_0, wait_for_all
from unsee_dist.errors import writing
from unsee_dist.exports import exporter, recover_exports
from unsee_dist.inputs import Inputs, open_inputs, start_request, tokenise_ahead
from unsee_dist.masking import masked
from unsee_dist.model.checked import load_once
from unsee_dist.model.compiled import compile_encoders
from unsee_dist.model.target import Target
from unsee_dist.model.unsee import Unsee
from unsee_dist.recording import open_recorder, print_ending
from unsee_dist.supervision.ownership import owned_run
from unsee_dist.supervision.phases import enter_phase
from unsee_dist.supervision.signals import Stopped, StopSignal
from unsee_dist.tracking.environment import of_this_start
from unsee_dist.tracking.recorder import RunRecorder
from unsee_dist.training.beginning import corpus_name, print_first_line, print_waiting
from unsee_dist.training.checkpoint import resume
from unsee_dist.training.checkpoint.manifest import Manifest
from unsee_dist.training.checkpoint.saving import Saver
from unsee_dist.training.embed import embedder
from unsee_dist.training.ending import Ending
from unsee_dist.training.guard import with_verdict
from unsee_dist.training.loop import RunBroken, Training
from unsee_dist.training.loop import train as train_loop
from unsee_dist.training.progress import Progress
from unsee_dist.training.start import keep_record, plan_start

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
    print_ending(run, ending, write_page=report is None and not run.complete)  # a sweep has a page of its own


def _evaluate_and_report(run: Training, report: ReportEvaluation) -> dict[str, float]:
    scores = from_rank_0(run.engine.world, run.evaluate())
    report(run.progress.step, scores)
    return scores


def build(config: RunConfig, world: World, stop: StopSignal | None = None) -> Training:
    """All objects of a run, restored from its newest checkpoint when there is one. Collective."""
    enter_phase("build")
    stop = stop or StopSignal()
    stop.set_grace(config.checkpoint.grace_s)
    seed_everything(config.seed)
    inputs = read_inputs(config, world)
    request = start_request(config, inputs)
    print_first_line(config, world, inputs.shards.sentences)
    start = plan_start(world, request)
    for sentence in start.sentences:
        print_on_rank_0(world, f"{request.folder}: {sentence}")

    engine = make_engine(config, inputs.model, world)
    target, progress = build_target(engine), Progress()
    recover_exports(request.folder, world)
    manifest = restore(start.checkpoint, engine, target, progress) if start.checkpoint else None
    if start.checkpoint and not start.complete:
        print_continuing(world, request.folder, progress, start.checkpoint)
    if not start.own:
        progress.begin_here()
    with share_errors(world):
        if world.rank == 0:
            keep_record(config, start, progress.step, world.size, of_this_start(world.device))
        mlflow_run = manifest.mlflow_run if manifest and start.own else None
        recorder = open_recorder(request, world, progress, mlflow_run)
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
        folder=request.folder,
        identity=request.identity,
        evaluate=lambda: with_verdict(config.guard, inputs.development(embed)),
        baseline=inputs.development.baseline,
        export=exporter(config, engine, inputs.tokenizer, progress),
        rewind=rewinder(request.folder, engine, target, progress, recorder),
    )


def read_inputs(config: RunConfig, world: World) -> Inputs:
    """What the run reads, in memory or open, and its folder. Collective."""
    loaded = load_once(config.model, world)
    tokenise_ahead(config, world, loaded.tokenizer)
    with share_errors(world):  # a file that is missing on one host must not leave the others waiting
        inputs = open_inputs(config, world, loaded)
        folder = Path(config.run.dir)
        with writing(f"run.dir = {folder}", "Write another one."):
            folder.mkdir(parents=True, exist_ok=True)
    return inputs


def make_engine(config: RunConfig, model: Unsee, world: World, stage: int | None = None) -> Engine[Unsee]:
    """stage: None = that of the configuration."""
    return Engine(
        model,
        world,
        config.parallel.stage(world.size) if stage is None else stage,
        config.parallel.precision,
        weight_decay=config.train.weight_decay,
        clip=config.train.clip or 0.0,
        waiting="online" if config.train.projector_first else "",
    )


def restore(checkpoint: Path, engine: Engine[Unsee], target: Target | None, progress: Progress) -> Manifest:
    """Restore everything but the metrics from a checkpoint. Returns its manifest. Collective."""
    manifest = resume.restore(checkpoint, engine, target)
    progress.restore(manifest.progress)
    return manifest


def print_continuing(world: World, folder: Path, progress: Progress, checkpoint: Path) -> None:
    print_on_rank_0(world, f"continuing {folder} after step {progress.step} ({checkpoint.name})")


def rewinder(
    folder: Path, engine: Engine[Unsee], target: Target | None, progress: Progress, recorder: RunRecorder
) -> Callable[[], None]:
    """A function that returns the run to its newest checkpoint. Collective, as its calls are."""

    def rewind() -> None:
        checkpoint, _ = resume.find_checkpoint(engine.world, folder, "auto")
        if checkpoint is None:
            raise RunBroken("There is no checkpoint to return to yet. Lower train.lr or checkpoint.every.")
        restore(checkpoint, engine, target, progress)
        print_continuing(engine.world, folder, progress, checkpoint)
        recorder.rewind(progress.step)

    return rewind


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
