"""Whether the record of a run was edited: its settings and its scores are also in its checkpoints."""

from __future__ import annotations

import math
from pathlib import Path

from unsee_dist.config import CONFIG, kinds
from unsee_dist.config.kinds import (
    Kind,
    differences,
    flat,
    of_kind,
)
from unsee_dist.errors import UserError
from unsee_dist.metrics.names import STEP
from unsee_dist.tracking import record
from unsee_dist.tracking.metrics_file import METRICS, evaluations
from unsee_dist.training.checkpoint import directory
from unsee_dist.training.checkpoint.manifest import Manifest, read_manifest


def check_record(run: Path) -> None:
    """UserError: config.yaml states other settings than those by which the run's checkpoints were trained."""
    checkpoints, first = directory.folders(run / directory.CHECKPOINTS), record.first_settings(run)
    manifest = readable_manifest(checkpoints[-1]) if checkpoints else None
    if manifest is None or first is None:
        return
    different = differences(of_kind(flat(first), Kind.RESULT), manifest.identity.settings)
    if different:
        raise UserError(
            f"{run / CONFIG} was edited: it states (there) what the checkpoints were not trained with (here):\n"
            f"{kinds.table(different)}\nRestore it; or move it away, and the next start writes it anew."
        )


def check_scores(run: Path) -> None:
    """UserError: the last or the best scores in metrics.jsonl are others than the newest checkpoint's."""
    checkpoints = directory.folders(run / directory.CHECKPOINTS)
    manifest = readable_manifest(checkpoints[-1]) if checkpoints else None
    if manifest is None:
        return
    progress = manifest.progress
    kept = {progress.evaluated: progress.scores}
    if progress.best is not None:
        kept[progress.best.step] = progress.best.scores
    try:
        lines = evaluations(run / METRICS)
    except UserError:  # it is damaged, which whoever needs it says
        return
    for line in lines:
        for key, value in kept.get(int(line[STEP]), {}).items():
            if key in line and not _equal(line[key], value):
                raise UserError(
                    f"{run / METRICS} was edited: {key} of step {int(line[STEP])} is {line[key]:g} there, and {value:g} was "
                    "measured. Restore it."
                )


def _equal(a: float, b: float) -> bool:
    """What is not finite is null in metrics.jsonl."""
    finite = math.isfinite(a), math.isfinite(b)
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12) if all(finite) else not any(finite)


def readable_manifest(checkpoint: Path) -> Manifest | None:
    """The manifest of a checkpoint; None where it is damaged, which is said when the run looks for a whole one."""
    try:
        return read_manifest(checkpoint)
    except UserError:
        return None
