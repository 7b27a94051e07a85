"""The RunConfig tree: every setting of a run, its type, its bounds and its default.

The defaults are written here and in objective.py alone: configs/base.yaml explains the settings and sets none.
Conditions on two settings are in `conflicts`. None always means absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

import yaml
from pydantic import Field, field_validator, model_validator

from unsee_dist.config.objective import AnyObjective, VICRegSettings
from unsee_dist.config.section import PathText, Section
from unsee_dist.errors import UserError
from unsee_dist.masking import credentials, has_secret

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Cadence = Annotated[float, Field(gt=0)]  # steps, or below 1 a fraction of the run's steps
Text = Annotated[str, Field(min_length=1)]
LEAST_BATCH = 2  # the objectives compare sentences
RECORD_TOKENS = (1 << 16) - 1  # of a record, in a corpus's prepared tokens: data/corpus/tokens.py

# The choices of settings, by the names that components import.
Pooling = Literal["mean", "cls"]
ProjectorKind = Literal["blocks", "tanh"]
DecaySchedule = Literal["constant", "cosine"]
OnDamage = Literal["stop", "skip"]
Views = Literal["dropout", "crop"]
Precision = Literal["fp32", "bf16", "fp16"]


class RunSettings(Section):
    name: Text = "run"  # shown by the trackers; absent in a file = the file's name
    dir: PathText = "runs/run"  # everything the run writes; absent = runs/<name>

    @model_validator(mode="before")
    @classmethod
    def _dir_follows_name(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        stated = {key: value for key, value in given.items() if value is not None}
        return {"dir": f"runs/{stated.get('name', 'run')}"} | stated


class ModelSettings(Section):
    encoder: PathText = "bert-base-uncased"  # a local folder or a hub name
    pooling: Pooling = "mean"  # how token states become one embedding
    max_tokens: Annotated[int, Field(ge=3)] = 64  # word pieces a sentence, [CLS] and [SEP] counted
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None  # absent = the encoder's own


class ProjectorSettings(Section):
    kind: ProjectorKind = "blocks"  # tanh = SimCSE's Linear + Tanh; also dropped after training
    blocks: Annotated[int, Field(ge=0)] = 1  # of kind blocks; 0 = no projector
    width: Count = 10  # hidden width, in multiples of the embedding's
    side: Literal["online", "both"] = "online"  # which encoders have one


class TargetSettings(Section):
    kind: Literal["ema", "online"] = "ema"  # online = no target network: two masks of one encoder
    decay: Share = 0.999  # share of the target kept at each applied step
    schedule: DecaySchedule = "constant"  # cosine = from decay to 1 over the run


class DataSettings(Section):
    shards: PathText = "data/wiki1m"  # a folder written by `unsee prepare`, or its URL
    mix: PathText | None = None  # instead of shards: "3 data/wiki, 1 data/mine", shares and folders
    cache_gb: Annotated[float, Field(ge=0)] = 8.0  # most that is kept on this machine of remote shards
    workers: Annotated[int, Field(ge=0)] = 2  # tokenising processes a rank; 0 = the training process does it
    tokenise: bool = False  # the corpus once, before the first step, for this run and those to come
    trace: bool = False  # write trace/rank-R.jsonl, the sentence ids of every step
    pack: bool | Literal["auto"] = "auto"  # several sentences share a row; auto = where the encoder can
    on_damage: OnDamage = "stop"  # skip = other sentences are read instead, counted in metrics.jsonl
    views: Views = "dropout"  # crop = each view is a span of the record, too: for documents
    crop_tokens: Annotated[int, Field(ge=3)] = 16  # word pieces of a crop at least, [CLS] and [SEP] counted
    crop_distance: Annotated[int, Field(ge=0)] | None = None  # between the views' first tokens; absent = any


class TrainSettings(Section):
    batch: Annotated[int, Field(ge=LEAST_BATCH)] = 32  # sentences a step over ALL ranks
    micro_batch: Count | None = None  # sentences encoded at once on one rank; absent = its whole part
    steps: Count | None = None  # absent = from epochs; a number wins
    epochs: Annotated[float, Field(gt=0)] | None = 1.0  # passes over the corpus
    lr: Annotated[float, Field(gt=0)] = 1e-4  # peak of the schedule
    warmup: Share = 0.1  # fraction of the steps that rise to lr; then linear to 0
    projector_first: Share = (
        0.0  # fraction of the steps in which the encoder waits while the projector learns
    )
    weight_decay: Annotated[float, Field(ge=0)] = 0.01  # not on biases and LayerNorms
    clip: Annotated[float, Field(gt=0)] | None = 1.0  # bound of the global gradient norm; absent = none

    def part(self, ranks: int) -> int:
        """Sentences of a step on each of so many ranks. UserError: they have no equal parts."""
        if self.batch % ranks:
            below = self.batch // ranks * ranks
            possible = f"{below} or {below + ranks}" if below else f"{ranks}"
            raise UserError(f"train.batch = {self.batch} cannot be split over {ranks} ranks. Use {possible}.")
        return self.batch // ranks


class ParallelSettings(Section):
    zero: Annotated[int, Field(ge=0, le=3)] = 1  # DeepSpeed ZeRO stage
    precision: Precision = "bf16"  # of parameters and compute; masters stay fp32
    compile: bool = (
        False  # encoders by torch.compile, once for each of a few numbers of rows; needs a compiler
    )

    def stage(self, ranks: int) -> int:
        """The ZeRO stage on so many ranks: one has nothing to shard, and would pay for it."""
        return self.zero if ranks > 1 else 0


class EvaluateSettings(Section):
    every: Cadence = 0.05  # steps, or below 1 a fraction of the run
    sts: PathText | list[PathText] | None = None  # tsv/csv/jsonl files or hub names; absent = no STS
    retrieval: PathText | list[PathText] | None = (
        None  # held-out files of `unsee prepare --dev`; absent = none
    )
    patience: Count | None = None  # evaluations in a row without a better score end the run; absent = never

    _whole_steps = field_validator("every")(lambda value: _whole_or_fraction(value))


class CheckpointSettings(Section):
    every: Cadence = 0.05  # steps, or below 1 a fraction of the run
    keep: Annotated[int, Field(ge=2)] = (
        2  # newest checkpoints kept; one alone would be lost while it is replaced
    )
    background: bool = True  # written by a thread while training continues
    grace_s: Annotated[float, Field(gt=0)] = 90.0  # after a signal, seconds until the process must be gone

    _whole_steps = field_validator("every")(lambda value: _whole_or_fraction(value))


class GuardSettings(Section):
    timeout_s: Annotated[float, Field(ge=1)] = 300.0  # a rank without progress for longer ends the job
    skips: Count = 10  # steps in a row with a loss or gradient that is not finite: roll back once, then stop
    spike: Annotated[float, Field(gt=1)] = (
        8.0  # a loss this many deviations above its running mean is reported
    )
    collapse: Literal["warn", "stop"] = "warn"  # what a collapse does
    effective_rank: Annotated[float, Field(ge=1)] = 4.0  # of the embeddings; below it they have collapsed
    std: Annotated[float, Field(ge=0)] = 1e-2  # per dimension; below it they have collapsed
    evaluations: Count = 2  # in a row below a bound


class TrackSettings(Section):
    tensorboard: bool = False  # event files in the run's folder, beside MLflow or alone
    mlflow: bool = True  # to MLFLOW_TRACKING_URI, else sqlite:///mlflow.db
    every: Count = 1  # steps between lines of metrics.jsonl


class RunConfig(Section):
    """Everything a run depends on but the corpus. Frozen; an instance is always valid."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0  # of order, dropout and fresh weights
    resume: PathText = "auto"  # auto | never | a checkpoint or run to start from
    run: RunSettings = RunSettings()
    model: ModelSettings = ModelSettings()
    projector: ProjectorSettings = ProjectorSettings()
    target: TargetSettings = TargetSettings()
    objective: AnyObjective = VICRegSettings()
    data: DataSettings = DataSettings()
    train: TrainSettings = TrainSettings()
    parallel: ParallelSettings = ParallelSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    guard: GuardSettings = GuardSettings()
    track: TrackSettings = TrackSettings()

    @property
    def read_tokens(self) -> int:
        """Word pieces of a record that are read: of one that is cropped, as many as a corpus can keep."""
        return self.model.max_tokens if self.data.views == "dropout" else RECORD_TOKENS

    @model_validator(mode="after")
    def _agree(self) -> RunConfig:
        if between := conflicts(self):
            raise Conflicts(between)
        return self

    def as_yaml(self) -> str:
        """The resolved configuration: every key, no comments, no extends. `load` reads it back equal."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


class Conflict(NamedTuple):
    """Settings that are legal alone but not together: the one to change, the others, and what to write instead."""

    key: str
    others: tuple[str, ...]
    why: str
    instead: str


class Conflicts(UserError):
    """Carries all conflicts of a configuration through pydantic."""

    def __init__(self, conflicts: list[Conflict]) -> None:
        super().__init__("; ".join(f"{each.key} {each.why}: {each.instead}" for each in conflicts))
        self.conflicts = conflicts

    def __reduce__(self) -> tuple[type[Conflicts], tuple[list[Conflict]]]:
        return type(self), (self.conflicts,)


def conflicts(config: RunConfig) -> list[Conflict]:
    """The conflicts between settings. The run itself checks what depends on the machine (ranks, GPU)."""
    between = []
    train = config.train
    if train.micro_batch is not None and train.micro_batch > train.batch:
        why = f"is larger than train.batch = {train.batch}"
        instead = f"write at most {train.batch}, or leave it out to encode a rank's part at once"
        between.append(Conflict("train.micro_batch", ("train.batch",), why, instead))
    data, most = config.data, config.model.max_tokens
    if data.views == "crop" and data.crop_tokens > most:
        why, instead = f"is more than model.max_tokens = {most}", f"write at most {most}"
        between.append(Conflict("data.crop_tokens", ("model.max_tokens",), why, instead))
    if train.steps is None and train.epochs is None:
        why = "and train.epochs are both absent, so the run has no end"
        between.append(Conflict("train.steps", ("train.epochs",), why, "write one of them"))
    if config.parallel.compile:
        between += _against_compile(config)
    evaluated = config.evaluate
    if evaluated.patience is not None and not (evaluated.sts or evaluated.retrieval):
        instead = "write evaluate.sts or evaluate.retrieval, too, or leave it out"
        others = ("evaluate.sts", "evaluate.retrieval")
        between.append(
            Conflict("evaluate.patience", others, "waits for a better score, and there is none", instead)
        )
    if re.match(r"[\w+.-]+://", config.run.dir):
        instead = "write a folder, of this machine or shared by all"
        between.append(Conflict("run.dir", (), "is a URL, and a run needs a folder", instead))
    return between + secrets(config.model_dump())


def _against_compile(config: RunConfig) -> list[Conflict]:
    found, key, without = [], "parallel.compile", "or leave parallel.compile out"
    if config.parallel.zero == 3:
        why = (
            "cannot go with parallel.zero = 3, which gathers the weights of each layer while the encoder runs"
        )
        found.append(Conflict(key, ("parallel.zero",), why, f"write parallel.zero=2, {without}"))
    if config.data.pack is False:
        why = "needs sentences that share rows (data.pack = false), since rows of one sentence have any width"
        found.append(Conflict(key, ("data.pack",), why, f"leave data.pack out, {without}"))
    return found


def secrets(tree: Mapping[str, object], section: str = "") -> list[Conflict]:
    """The settings that hold a password or a token: a run's settings are written to its folder, to MLflow and to a card."""
    names = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            names += secrets(value, f"{section}{key}.")
        elif has_secret(str(value)):
            why = "has a password or a token in its URL, and settings are written to the run's folder"
            instead = f"write the URL without it, and {credentials(str(value))}"
            names.append(Conflict(f"{section}{key}", (), why, instead))
    return names


def every_steps(every: float, steps: int) -> int:
    """A cadence in steps: `every` itself, or below 1 that fraction of the run's `steps`, at least 1."""
    return max(1, round(every * steps)) if every < 1 else round(every)


def _whole_or_fraction(every: float) -> float:
    if every >= 1 and every != int(every):
        raise UserError("must be a whole number of steps, or a fraction of the run below 1")
    return every
