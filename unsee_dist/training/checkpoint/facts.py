"""Whether the numbers of a manifest can be those of a run; a digest does not tell when it was made anew after an edit."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import TYPE_CHECKING

from unsee_dist.distributed.loss_scale import HIGHEST, LOWEST

if TYPE_CHECKING:
    from unsee_dist.training.checkpoint.manifest import Manifest, StoredFile
    from unsee_dist.training.guard import GuardState
    from unsee_dist.training.progress import Best

MOST = 1 << 53  # of a count
MOST_STEPS = 1 << 40  # at a thousand a second, more than thirty years
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # a file of this folder, and of no other
HEX = re.compile(r"[0-9a-f]+")
KIND = "(?:master|exp_avg|exp_avg_sq|ema)"
NUMBER = "(?:0|[1-9][0-9]{0,14})"
PART = re.compile(rf"({KIND}(?:,{KIND}){{0,3}})/(.+)@({NUMBER})\+({NUMBER})")  # kinds, name, start, elements


def contradiction(manifest: Manifest) -> str | None:
    """The first value that no run has written, or None."""
    progress, scale = manifest.progress, manifest.loss_scale
    step = progress.step
    checks = {
        "progress.step": 0 <= step < MOST_STEPS,
        "progress.started": 0 <= progress.started <= step,
        "progress.lines": 0 <= progress.lines <= 3 * (step + 1),  # a report and an evaluation a step, at most
        "progress.updates": 0 <= progress.updates <= step,
        "progress.passed_over": 0 <= progress.passed_over <= step,
        "progress.evaluated": -1 <= progress.evaluated <= step,
        "progress.best": progress.best is None or _is_sane(progress.best, step),
        "progress.guard": _are_counts(progress.guard),
        "adam_updates": 0 <= manifest.adam_updates <= step,
        "loss_scale": scale is None or (LOWEST <= scale.value <= HIGHEST and 0 <= scale.steady < MOST),
        "files": _are_files(manifest.files),
    }
    return next((name for name, holds in checks.items() if not holds), None)


def _is_sane(best: Best, step: int) -> bool:
    return math.isfinite(best.value) and 0 <= best.step <= step


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
