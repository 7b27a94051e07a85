"""How a run starts: new, where it was, with another run's checkpoint, or not at all because it is complete.

Nothing of the folder is touched before a start is planned. A start that would make another run of it is refused (config/kinds.py says which
settings do), with what is there, what was given, and what to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from unsee_dist.config import CONFIG, kinds
from unsee_dist.config.kinds import (
    Kind,
    Plain,
    SettingDifference,
    differences,
    flat,
    is_carried,
    of_kind,
    shown,
)
from unsee_dist.config.sections import RunConfig, TrainSettings
from unsee_dist.distributed.shared_errors import share_errors
from unsee_dist.distributed.world import World, from_rank_0
from unsee_dist.errors import UserError
from unsee_dist.model.target import decay_at
from unsee_dist.tracking import record
from unsee_dist.tracking.metrics_file import METRICS, count_lines, cut_back
from unsee_dist.tracking.note import BEST_EXPORT, EXPORTS, FINAL_EXPORT
from unsee_dist.training.checkpoint import directory
from unsee_dist.training.checkpoint.manifest import Identity, Manifest, read_manifest
from unsee_dist.training.checkpoint.resume import find_checkpoint
from unsee_dist.training.edited import check_record, readable_manifest
from unsee_dist.training.progress import Progress
from unsee_dist.training.schedule import learning_rate, rising_steps, total_steps


@dataclass(frozen=True)
class Start:
    """checkpoint: the state to restore, None for the first step. own: it is this run's. changed: since the last start, of
    what may change. sentences: for the user. complete: nothing is left to train."""

    checkpoint: Path | None = None
    own: bool = True
    changed: tuple[SettingDifference, ...] = ()
    sentences: tuple[str, ...] = ()
    complete: bool = False

    @property
    def continues(self) -> bool:
        """Whether the folder has a state of this run."""
        return self.checkpoint is not None and self.own


@dataclass(frozen=True)
class StartRequest:
    """What a start was given. sentences: of the corpus."""

    config: RunConfig
    identity: Identity
    sentences: int

    @property
    def folder(self) -> Path:
        return Path(self.config.run.dir)

    @property
    def steps(self) -> int:
        return total_steps(self.config.train, self.sentences)


def plan_start(world: World, request: StartRequest) -> Start:
    """What this start does. Collective; UserError on all ranks with what to write instead."""
    checkpoint, own = find_checkpoint(world, request.folder, request.config.resume)
    start = Start()
    with share_errors(world):
        if world.rank == 0:
            start = _plan(request, checkpoint, own)
    return from_rank_0(world, start)


def refuse_other_settings(world: World, config: RunConfig) -> None:
    """The refusal of a start by its settings alone, before hours of work on what they name. Collective."""
    folder = Path(config.run.dir)
    with share_errors(world):
        checkpoints = directory.folders(folder / directory.CHECKPOINTS) if world.rank == 0 else []
        if checkpoints and (manifest := readable_manifest(checkpoints[-1])) is not None:
            different = differences(manifest.identity.settings, of_kind(flat(config), Kind.RESULT))
            if different:
                raise UserError(_refusal(folder, config.train.steps or 0, different, manifest.step))


def _plan(request: StartRequest, checkpoint: Path | None, own: bool) -> Start:
    if checkpoint is None:
        return Start(sentences=_check_new(request))
    manifest = read_manifest(checkpoint)
    if not own:
        _check_origin(request, manifest)
        return Start(checkpoint, own=False, sentences=_check_new(request))
    return _continued(request, checkpoint, manifest)


def _continued(request: StartRequest, checkpoint: Path, manifest: Manifest) -> Start:
    check_record(request.folder)
    there, here = record.last_settings(request.folder), flat(request.config)
    different = differences(manifest.identity.by_key(), request.identity.by_key())
    if different:
        raise UserError(
            _refusal(request.folder, request.steps, _with_names(different, there or {}, here), manifest.step)
        )
    sentences = _check_length(request, there, manifest.progress)
    progress = manifest.progress
    changed = tuple(
        differences(*(of_kind(each, Kind.CHANGE, Kind.CONTENT, Kind.GROW) for each in (there or here, here)))
    )
    if complete := (
        (progress.step >= request.steps or progress.is_out_of(request.config.evaluate.patience))
        and progress.evaluated >= progress.step
        and (request.folder / FINAL_EXPORT).is_dir()
    ):
        changed = ()  # nothing will run with them
    if changed:
        sentences = (f"changed since the last start: {', '.join(map(str, changed))}", *sentences)
    return Start(checkpoint, True, changed, sentences, complete)


def _check_new(request: StartRequest) -> tuple[str, ...]:
    """A folder without a checkpoint of this run may hold what an earlier start left. UserError: encoders of other settings."""
    there, here = record.last_settings(request.folder), flat(request.config)
    _check_apart(request.folder)
    if there is None:
        foreign = [name for name in (METRICS, record.HISTORY) if (request.folder / name).exists()]
        if foreign:  # a run writes config.yaml first
            raise UserError(
                f"run.dir = {request.folder} has {' and '.join(foreign)} and no config.yaml: no run of unsee_dist wrote that. "
                f"Nothing was changed. Write run.dir={free_name(request.folder)}, or move the file away."
            )
        return ()
    record.check_is_record(request.folder)
    matters = (Kind.RESULT, Kind.CONTENT, Kind.GROW)
    different = differences(of_kind(there, *matters), of_kind(here, *matters))
    if different and any((request.folder / name).is_dir() for name in EXPORTS):
        raise UserError(_refusal(request.folder, request.steps, different, None))
    # written after the checkpoint of the last step: somebody has removed that
    if (request.folder / FINAL_EXPORT).is_dir():
        raise UserError(_without_checkpoints(request.folder))
    begun = count_lines(request.folder / METRICS)
    lost = [f"{begun} lines of {METRICS}"] * bool(begun) + ["best/"] * (request.folder / BEST_EXPORT).is_dir()
    if not different and not lost:
        return ()
    others = (
        f", with other settings than were tried there before ({', '.join(map(str, different))})"
        if different
        else ""
    )
    replaced = f". What the earlier start left is replaced: {' and '.join(lost)}" if lost else ""
    return (f"{request.folder} has no checkpoint: the run begins anew{others}{replaced}",)


def _check_apart(folder: Path) -> None:
    """UserError: a new run would lie in a folder that another run writes."""
    for inner in (folder.absolute(), *folder.absolute().parents[:1]):
        run = inner.parent
        if inner.name in (directory.CHECKPOINTS, *EXPORTS) and (run / CONFIG).is_file():
            raise UserError(
                f"run.dir = {folder} is in {inner.name}/ of another run. Nothing was changed. Write run.dir={run} to continue that "
                f"run, or run.dir={free_name(run)} for a run of its own."
            )


def _without_checkpoints(folder: Path) -> str:
    return (
        f"run.dir = {folder} has final/, and the checkpoints of that run are gone: it would begin anew at step 1, and its "
        f"encoders and its record would be replaced. Nothing was changed. Write run.dir={free_name(folder)} for a run of its own "
        f"(with model.encoder={folder}/final to start from the encoder trained here); or restore its checkpoints; or remove the "
        "folder."
    )


def _refusal(folder: Path, steps: int, different: list[SettingDifference], step: int | None) -> str:
    """The table of what differs, and the ways out. step: of the newest checkpoint, where there is one."""
    ways = [f"run.dir={free_name(folder)} for a run of its own"]
    if step is not None and not any(is_carried(each.key) for each in different):
        more = "" if steps > step else f" train.steps=N (more than {step})"
        ways.append(f"the same with resume={folder}{more} to start it from step {step} of this one")
    elif exported := [name for name in EXPORTS if (folder / name).is_dir()]:
        ways.append(
            f"the same with model.encoder={folder / exported[0]} to start from the encoder trained here"
        )
    ways.append("the settings that are there to continue this run")
    return (
        f"{folder} was trained with other settings. With these it would be another run:\n{kinds.table(different)}\n"
        f"Nothing was changed. Write {'; or '.join(ways)}."
    )


def _check_origin(request: StartRequest, manifest: Manifest) -> None:
    """UserError: another run's checkpoint cannot be the start of this run."""
    given, step = request.config.resume, manifest.step
    different = differences(manifest.identity.by_key(), request.identity.by_key())
    fixed = [each for each in different if is_carried(each.key)]
    encoder = "or start from its encoder alone: model.encoder=RUN/best, without resume"
    if fixed:
        raise UserError(
            f"resume = {given} cannot be the start of this run. A checkpoint's tensors and its place in the corpus belong to "
            f"these settings:\n{kinds.table(fixed)}\nWrite the settings that are there, {encoder}."
        )
    if request.steps <= step:
        raise UserError(
            f"resume = {given} is at step {step}, and this run would end at step {request.steps}: nothing is left to train. "
            f"Write train.steps=N with more than {step}, {encoder}."
        )


def _check_length(request: StartRequest, there: dict[str, Plain] | None, done: Progress) -> tuple[str, ...]:
    """A run may grow: the sentence that says which schedule follows. UserError: it would shrink."""
    planned = done.step if there is None else _planned(request, there)
    if request.steps < max(planned, done.step):
        raise UserError(
            f"{_length(request)} is fewer than the {planned} steps that {request.folder} was started with ({done.step} are "
            f"trained). A run may grow, not shrink. Write train.steps={max(planned, done.step)} or more, or "
            f"run.dir={free_name(request.folder)} for a run of its own."
        )
    return (_growth(request, planned, done),) if there is not None and request.steps > planned else ()


def _planned(request: StartRequest, there: dict[str, Plain]) -> int:
    """The steps of the run as it was last started."""
    train = {key: there[f"train.{key}"] for key in ("batch", "steps", "epochs")}
    try:
        return total_steps(TrainSettings.model_validate(train), request.sentences)
    except ValidationError as error:
        raise UserError(
            f"{request.folder / record.HISTORY} has a length that no run can have ({error.errors()[0]['msg']}). Restore the file."
        ) from error


def _length(request: StartRequest) -> str:
    train = request.config.train
    return (
        f"train.steps = {train.steps}"
        if train.steps
        else f"train.epochs = {train.epochs:g}, {request.steps} steps,"
    )


def _growth(request: StartRequest, planned: int, done: Progress) -> str:
    """What follows when a run of `planned` steps gets more. The past stays what it was: its rates were the old schedule's."""
    train, target, steps, update = (
        request.config.train,
        request.config.target,
        request.steps,
        done.updates + 1,
    )
    rising = rising_steps(steps, train.warmup)
    peak = f"rises to {train.lr:.1e} at update {rising} " if update < rising else ""
    follows = f"the learning rate goes on with {learning_rate(update, steps, train.lr, train.warmup):.1e}, {peak}and falls to 0"
    if target.kind == "ema" and target.schedule != "constant":
        follows += f", the decay with {decay_at(update, steps, target.decay, target.schedule):.4f}"
    return (
        f"the run grows from {planned} to {steps} steps after step {done.step}. From there on the schedule of {steps} steps "
        f"holds: {follows}. The steps before keep the rates of {planned} steps, so this is not what {steps} steps at once "
        "would have given"
    )


def keep_record(
    config: RunConfig, start: Start, step: int, ranks: int, environment: Mapping[str, str]
) -> None:
    """What this start adds to the record of what ran; nothing where nothing is left to train."""
    folder = Path(config.run.dir)
    if start.continues:
        record.keep_settings(folder, config)
    else:
        record.begin(folder, config)
        cut_back(folder / METRICS, -1)  # of an attempt that left no checkpoint
    if not start.complete:
        origin = None if start.own else start.checkpoint
        record.add_start(folder, step, ranks, start.changed, origin, environment)


def _with_names(
    different: list[SettingDifference], there: dict[str, Plain], here: dict[str, Plain]
) -> list[SettingDifference]:
    """Contents with the names they have in the settings: "data/wiki (3fa9...)"."""

    def named(each: SettingDifference, content: object, settings: dict[str, Plain]) -> object:
        name = (settings.get("data.mix") if each.key == "data.shards" else None) or settings.get(each.key)
        if each.key in settings and kinds.kind_of(each.key) is Kind.CONTENT and name:
            return f"{shown(name)} ({content})"
        return content

    return [SettingDifference(e.key, named(e, e.there, there), named(e, e.here, here)) for e in different]


def free_name(folder: Path) -> Path:
    """The first of NAME-2, NAME-3, ... that does not exist."""
    number = 2
    while folder.with_name(f"{folder.name}-{number}").exists():
        number += 1
    return folder.with_name(f"{folder.name}-{number}")
