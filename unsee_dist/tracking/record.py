"""What ran, in a run's folder. Neither file is ever rewritten while the run has a checkpoint or an export.

config.yaml     the resolved settings of its first start
history.jsonl   a line for each start: {"step": 200, "time": ..., "ranks": 2, "changed": {"data.workers": [2, 0]},
                "environment": {"host": "node-3", "python": "3.11.9", ...}}, and "from" where it began with another run's
                checkpoint
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from unsee_dist.config import CONFIG, ConfigError, load
from unsee_dist.config.kinds import Plain, SettingDifference, flat, kind_of
from unsee_dist.config.sections import RunConfig
from unsee_dist.errors import UserError, writing
from unsee_dist.files.atomic import write_file
from unsee_dist.files.trees import read_within
from unsee_dist.metrics.names import STEP, TIME
from unsee_dist.tracking.metrics_file import MetricsFile
from unsee_dist.tracking.unsent import FILE as MLFLOW

HISTORY = "history.jsonl"
CHANGED, RANKS, FROM, ENVIRONMENT = "changed", "ranks", "from", "environment"
MOST_BYTES = 1 << 26  # of history.jsonl: of some hundred thousand starts


@dataclass(frozen=True)
class PastStart:
    """A line of history.jsonl. changed: by key, the value there and here. origin: another run's checkpoint. time: in
    seconds since 1970. environment: of rank 0, versions and machine; {} in lines of earlier versions."""

    step: Annotated[int, Field(ge=0)]
    ranks: int
    changed: dict[str, tuple[Plain, Plain]]
    origin: Annotated[str | None, Field(alias=FROM)] = None
    time: Annotated[float, Field(ge=0, allow_inf_nan=False, lt=1e11)] = 0.0
    environment: dict[str, str] = field(default_factory=dict)


LINE = TypeAdapter(PastStart)


def first_settings(run: Path) -> RunConfig | None:
    """The settings of a run's first start; None where there are none. UserError: the file is damaged."""
    path = run / CONFIG
    if not path.exists():
        return None
    try:
        if path.stat().st_size:
            return load(str(path))
        why = "it is empty"
    except ConfigError as error:
        why = str(error.mistakes[0])
    raise UserError(
        f"{path} cannot be read as the settings of this run ({why}). Restore it; or move it away, and it is written anew: "
        "the checkpoints have their own copy of what must stay the same."
    )


def check_is_record(run: Path) -> None:
    """UserError: the config.yaml of a folder is a file that the user has written, and no record of a run."""
    path = run / CONFIG
    if path.exists() and (settings := first_settings(run)) and path.read_text("utf-8") != settings.as_yaml():
        raise UserError(
            f"{path} is a file of yours, and the record of a run would take its place. Nothing was changed. Write "
            f"run.dir={run / 'run'}, or give the file another name."
        )


def last_settings(run: Path) -> dict[str, Plain] | None:
    """The settings by key with which a run was last started: the first ones, and what later starts changed."""
    first = first_settings(run)
    if first is None:
        return None
    settings = flat(first)
    for line in starts(run):
        settings |= {key: now for key, (_, now) in line.changed.items()}
    return settings


def starts(run: Path) -> list[PastStart]:
    """The lines of history.jsonl; one cut short by a kill is left out. UserError: another one is damaged."""
    path, remedy = run / HISTORY, "Delete that line, or move the file away."
    if not path.exists():
        return []
    whole = read_within(path, MOST_BYTES, remedy).rpartition(b"\n")[0]
    lines = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            lines.append(LINE.validate_json(line))
            for key in lines[-1].changed:
                kind_of(key)
        except (ValidationError, KeyError) as error:
            raise UserError(f"{path}, line {number} is damaged. {remedy}") from error
    return lines


def changes(run: Path, before: float = math.inf, keys: Callable[[str], bool] | None = None) -> list[str]:
    """Words for each start that changed settings: "after step 200: data.workers 2 -> 0". before: only steps before this
    one. keys: which are shown."""
    sentences = []
    for line in starts(run):
        pairs = [
            str(SettingDifference(key, *pair))
            for key, pair in line.changed.items()
            if keys is None or keys(key)
        ]
        sentences += [f"after step {line.step}: {', '.join(pairs)}"] if pairs and line.step < before else []
    return sentences


def begin(run: Path, config: RunConfig) -> None:
    """Write config.yaml of a run that begins, or begins anew: what an earlier start left without a checkpoint is no record
    of this one. MLflow keeps the parameters it was given, so other settings are another run there."""
    if first_settings(run) == config:
        return
    with writing(f"run.dir = {run}", "Write another one."):
        for name in (CONFIG, HISTORY, MLFLOW.name):
            (run / name).unlink(missing_ok=True)
    keep_settings(run, config)


def keep_settings(run: Path, config: RunConfig) -> None:
    """Write config.yaml where there is none."""
    if not (run / CONFIG).exists():
        with writing(f"run.dir = {run}", "Write another one."):
            write_file(run / CONFIG, config.as_yaml())


def add_start(
    run: Path,
    step: int,
    ranks: int,
    changed: Sequence[SettingDifference],
    origin: Path | None,
    environment: Mapping[str, str],
) -> None:
    """Append a start to history.jsonl: after which step, on how many ranks, what it changed, where it came from, and with
    which versions on which machine it runs."""
    pairs = {each.key: [each.there, each.here] for each in changed}
    line = {STEP: step, TIME: time.time(), RANKS: ranks, CHANGED: pairs, ENVIRONMENT: dict(environment)}
    file = MetricsFile(run / HISTORY)
    file.write(line | ({FROM: str(origin)} if origin else {}))
    file.close()
