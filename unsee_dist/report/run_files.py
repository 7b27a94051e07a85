"""What a run's folder says of the run. What cannot be read is named in `problems`, and the rest is there all the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

from unsee_dist.config import CONFIG, ConfigError, RunConfig, recorded
from unsee_dist.config.kinds import Plain, flat
from unsee_dist.errors import TransientError, UserError
from unsee_dist.files.owner import OWNER, Owner, owner_of
from unsee_dist.masking import published
from unsee_dist.metrics.names import BEST, STEP, TIME, dev
from unsee_dist.metrics.verdict import gain_over
from unsee_dist.tracking import metrics_file, record
from unsee_dist.tracking.metrics_file import METRICS, Line
from unsee_dist.tracking.note import FINAL_EXPORT, NOTE
from unsee_dist.tracking.record import HISTORY, PastStart
from unsee_dist.training.checkpoint.directory import CHECKPOINTS, folders
from unsee_dist.training.checkpoint.manifest import Manifest, read_manifest

# running: a process trains it. silent: its process has not answered for a while, and cannot be seen from here. complete:
# all steps are trained. stopped: the same command continues. begun: stopped before the first checkpoint.
State = Literal["running", "silent", "complete", "stopped", "begun"]
SILENT_S = 120.0  # an owner touches its file every 5 seconds
Value = TypeVar("Value")


@dataclass(frozen=True)
class RunFiles:
    """config: the settings of the first start, None where they cannot be read. settings: those of the last one, by key.
    lines: of metrics.jsonl. owner: the process that writes there. manifest: of the newest checkpoint that can be read."""

    folder: Path
    config: RunConfig | None
    settings: Mapping[str, Plain]
    starts: list[PastStart]
    lines: list[Line]
    owner: Owner | None
    manifest: Manifest | None
    problems: tuple[str, ...] = ()
    label: str = ""  # its name, where that of its settings is not enough

    @property
    def name(self) -> str:
        return self.label or published(self.config.run.name if self.config else self.folder.resolve().name)

    @cached_property
    def training(self) -> list[Line]:
        """The lines that steps wrote."""
        return metrics_file.of_steps(self.lines)

    @cached_property
    def evaluations(self) -> list[Line]:
        """The lines that evaluations wrote, that of the untrained encoder included."""
        return metrics_file.of_evaluations(self.lines)

    @property
    def started(self) -> int:
        """The step the run began after: 0, or that of another run's checkpoint."""
        return self.starts[0].step if self.starts and self.starts[0].origin else 0

    @property
    def before(self) -> Line:
        """The scores of the encoder it began with; {} where there are none."""
        return next((line for line in self.evaluations if line[STEP] == self.started), {})

    @property
    def best(self) -> Line:
        """The evaluation that became best/; {} where none has."""
        lines = [line for line in self.after if line.get(dev(BEST))]
        return self._with_gain(lines[-1]) if lines else {}

    @property
    def last(self) -> Line:
        """The newest evaluation after training began; {} where there is none."""
        return self._with_gain(self.after[-1]) if self.after else {}

    @property
    def after(self) -> list[Line]:
        return [line for line in self.evaluations if line[STEP] > self.started]

    @property
    def step(self) -> int:
        """The newest step that anything here knows of."""
        saved = self.manifest.step if self.manifest else 0
        return max([saved, self.started, *(int(line[STEP]) for line in self.lines[-1:])])

    @property
    def steps(self) -> int | None:
        """Of the whole run; None where they follow from the corpus, and the run is not complete."""
        given = self.settings.get("train.steps")
        if isinstance(given, int):
            return given
        return self.step if self.state == "complete" else None

    @property
    def state(self) -> State:
        if self.owner is not None and not self.owner.ended:
            return "silent" if self._beat_age_s > SILENT_S else "running"
        if (exported := _exported(self.folder)) is not None and exported >= self.step:
            return "complete"
        return "stopped" if self.manifest else "begun"

    @property
    def changed_at(self) -> float | None:
        """When its newest line was written, in seconds since 1970; when it was started, where there is no line."""
        times = [line[TIME] for line in self.lines[-1:] if TIME in line]
        return max([*times, *(start.time for start in self.starts)], default=0.0) or None

    @property
    def _beat_age_s(self) -> float:
        try:
            return time.time() - (self.folder / OWNER).stat().st_mtime
        except OSError:
            return 0.0

    def _with_gain(self, line: Line) -> Line:
        return line | gain_over(self.before, line)


def is_run(folder: Path) -> bool:
    """Whether a training has written this folder."""
    traces = (METRICS, HISTORY, CHECKPOINTS)
    return (folder / CONFIG).is_file() and any((folder / name).exists() for name in traces)


def open_run(folder: Path) -> RunFiles:
    """What is in a run's folder. UserError: it is none."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder. Give a run's folder: unsee runs lists those below runs/.")
    if not is_run(folder):
        raise UserError(
            f"{folder} is not a run's folder: it has no {CONFIG} with {METRICS} or {CHECKPOINTS}/ beside it. unsee runs DIR lists "
            "the runs below a folder."
        )
    problems: list[str] = []
    config = tried(problems, lambda: recorded(folder), None)
    starts: list[PastStart] = tried(problems, lambda: record.starts(folder), [])
    settings = flat(config) if config else {}
    for start in starts:
        settings |= {key: now for key, (_, now) in start.changed.items()}
    lines: list[Line] = tried(problems, lambda: metrics_file.read(folder / METRICS), [])
    owner = tried(problems, lambda: owner_of(folder / OWNER), None)
    manifest = tried(problems, lambda: _newest(folder), None)
    return RunFiles(folder, config, settings, starts, lines, owner, manifest, tuple(problems))


def tried(problems: list[str], read: Callable[[], Value], instead: Value) -> Value:
    """What `read` returns; where it cannot, `instead`, and a sentence more in `problems`."""
    try:
        return read()
    except ConfigError as error:
        why = str(error.mistakes[0])
    except (UserError, TransientError) as error:
        why = str(error).splitlines()[0]
    problems.append(f"{why.rstrip('.:')}.")
    return instead


def _newest(folder: Path) -> Manifest | None:
    """Of the newest checkpoint. UserError: it is damaged."""
    checkpoints = folders(folder / CHECKPOINTS)
    return read_manifest(checkpoints[-1]) if checkpoints else None


def _exported(folder: Path) -> int | None:
    """The step of final/; None where there is none."""
    try:
        note = NOTE.read(folder / FINAL_EXPORT) if (folder / FINAL_EXPORT).is_dir() else None
    except UserError:  # whoever opens the folder says it
        return None
    return note.step if note else None
