"""manifest.json of a checkpoint: its content, typed, with the version of its format.

    format      of this file and of the tensors beside it
    identity    settings that must be the same for a run to continue from this checkpoint
    progress    how far the run was
    files       name, bytes and digest of every file beside it, and which elements of which parameters are in it
    digest      of all of the above, so that a flipped bit in a number is found

No torch at import: the command line reads manifests.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from unsee_dist.config.kinds import Plain
from unsee_dist.distributed.loss_scale import HIGHEST, LOWEST, LossScale
from unsee_dist.errors import UserError
from unsee_dist.files.trees import DIGEST, is_sealed, parse_json, read_within, sealed
from unsee_dist.metrics.names import MRR, RECALL_AT_1, STS, dev
from unsee_dist.training.guard import GuardState
from unsee_dist.training.progress import Best, Progress

NAME = "manifest.json"
BYTES = (
    1 << 26
)  # of the largest: BERT-base on 1,024 ranks at stage 3 has 18 MB, at the other stages a few hundred KB
# 1, without a number of its own, kept identity and progress in one flat dictionary; 2 had no loss_scale; 3 had few settings;
# 4 had no order, and did not say what is in which file
FORMAT = 5
MOST = 1 << 53  # of a count
MOST_STEPS = 1 << 40  # at a thousand a second, more than thirty years
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # a file of this folder, and of no other
HEX = re.compile(r"[0-9a-f]+")
# Of the scores that may decide: Spearman x 100, shares
RANGES = {dev(STS): (-100 - 1e-9, 100 + 1e-9), dev(MRR): (0, 1), dev(RECALL_AT_1): (0, 1)}
KIND = "(?:master|exp_avg|exp_avg_sq|ema)"
NUMBER = "(?:0|[1-9][0-9]{0,14})"
PART = re.compile(rf"({KIND}(?:,{KIND}){{0,3}})/(.+)@({NUMBER})\+({NUMBER})")  # kinds, name, start, elements


@dataclass(frozen=True)
class Identity:
    """What a run's result depends on, which no later start may change: its settings of that kind (config/kinds.py), and
    digests of what other settings name, with a few words for people."""

    settings: dict[str, Plain]
    encoder: str  # its shape and its weights before training
    tokenizer: str
    corpus: str  # fingerprint of the shards
    sts: str
    retrieval: str
    order: str  # of the sentences: the version that data/corpus/order.py has

    def by_key(self) -> dict[str, Plain]:
        """All of it by key, for config.kinds.differences."""
        contents = {
            "model.encoder": self.encoder,
            "tokenizer": self.tokenizer,
            "data.shards": self.corpus,
            "order": self.order,
            "evaluate.sts": self.sts,
            "evaluate.retrieval": self.retrieval,
        }
        return self.settings | contents


@dataclass(frozen=True)
class StoredFile:
    """A file of a checkpoint. xxh3: hex of its 128-bit digest. parts: "KIND,KIND,.../PARAMETER@START+ELEMENTS" (parts.py)."""

    name: str
    bytes: int
    xxh3: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint holds beside its tensors."""

    identity: Identity
    progress: Progress
    mlflow_run: str | None = None


@dataclass(frozen=True)
class Manifest:
    """The whole of manifest.json. adam_updates: the optimizer's own count of applied steps. loss_scale: of fp16."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    identity: Identity
    progress: Progress
    mlflow_run: str | None
    adam_updates: int
    loss_scale: LossScale | None
    files: tuple[StoredFile, ...]
    format: int = FORMAT

    @property
    def step(self) -> int:
        return self.progress.step

    def to_json(self) -> str:
        return json.dumps(sealed(asdict(self)), indent=1)


_MANIFEST = TypeAdapter(Manifest)


class OtherFormat(UserError):
    """An undamaged checkpoint of another version: no older one may be used in its place."""


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint. UserError: it cannot be read, was changed, or has another version's format."""
    path = folder / NAME
    try:
        data = read_within(path, BYTES, "Restore it.")
    except FileNotFoundError as error:
        raise UserError(f"{path} cannot be read (it does not exist)") from error
    try:
        tree = parse_json(data)
    except ValueError as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path} cannot be read (it is not a manifest)")
    version = tree.get("format", 1 if "facts_xxh3" in tree else None)
    if version != FORMAT:
        undamaged = version == 1 or is_sealed(tree)  # else a flipped bit
        raise (OtherFormat if undamaged else UserError)(
            f"{path} has format {repr(version)[:40]}, and this version of unsee_dist reads format {FORMAT}: up to format 4 the "
            "sentences come in another order. Continue it with the version that wrote it, or give this run a run.dir of its own"
        )
    if not is_sealed(tree):
        raise UserError(f"{path} cannot be read (its contents were changed)")
    del tree[DIGEST]
    try:
        manifest = _MANIFEST.validate_json(json.dumps(tree))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} cannot be read ({where}: {first['msg']})") from error
    if wrong := _contradiction(manifest):
        raise UserError(f"{path} cannot be read ({wrong} has a value that no run can have)")
    return manifest


def _contradiction(manifest: Manifest) -> str | None:
    """The first value that no run has written, or None: a digest does not tell when it was made anew after an edit."""
    progress, scale = manifest.progress, manifest.loss_scale
    step = progress.step
    checks = {
        "progress.step": 0 <= step < MOST_STEPS,
        "progress.started": 0 <= progress.started <= step,
        "progress.lines": 0 <= progress.lines <= 3 * (step + 1),  # a report and an evaluation a step, at most
        "progress.updates": 0 <= progress.updates <= step,
        "progress.passed_over": 0 <= progress.passed_over <= step,
        "progress.evaluated": -1 <= progress.evaluated <= step,
        "progress.waited": 0 <= progress.waited <= step,
        "progress.best": progress.best is None or _is_sane(progress.best, step),
        "progress.guard": _are_counts(progress.guard),
        "adam_updates": manifest.adam_updates == progress.updates,
        "loss_scale": scale is None or (LOWEST <= scale.value <= HIGHEST and 0 <= scale.steady < MOST),
        "files": _are_files(manifest.files),
    }
    return next((name for name, holds in checks.items() if not holds), None)


def _is_sane(best: Best, step: int) -> bool:
    """Its value is that of the score which decides, and within what this score can be."""
    lowest, highest = RANGES.get(best.metric, (-math.inf, math.inf))
    return (
        lowest <= best.value <= highest
        and math.isfinite(best.value)
        and best.scores.get(best.metric) == best.value
        and 0 <= best.step <= step
    )


def _are_counts(guard: GuardState) -> bool:
    values = {each.name: getattr(guard, each.name) for each in fields(guard)}
    mean = values.pop("mean")
    return math.isfinite(mean) and all(0 <= value < math.inf for value in values.values())


def _are_files(files: tuple[StoredFile, ...]) -> bool:
    plain = all(
        PLAIN.fullmatch(file.name) and HEX.fullmatch(file.xxh3) and all(map(PART.fullmatch, file.parts))
        for file in files
    )
    return (
        plain and len({file.name for file in files}) == len(files) and all(0 <= f.bytes < MOST for f in files)
    )
