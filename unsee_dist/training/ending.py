"""How a run ends: its scores side by side, what its folders hold, what is wrong with them, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unsee_dist.metrics.verdict import ADVICE, collapse, decline, improvement
from unsee_dist.tracking.note import BEST_EXPORT, FINAL_EXPORT, note_of
from unsee_dist.training.checkpoint import directory
from unsee_dist.training.progress import Progress


@dataclass(frozen=True)
class Ending:
    """Of a run that has trained all its steps. encoder: what it began with, in words."""

    progress: Progress
    folder: Path
    encoder: str

    @property
    def columns(self) -> dict[str, Mapping[str, float]]:
        progress = self.progress
        columns: dict[str, Mapping[str, float]] = {"before": progress.before}
        if progress.best:
            columns[f"best (step {progress.best.step})"] = progress.best.scores
        if progress.evaluated > progress.started:
            columns["final"] = progress.scores
        return columns

    @property
    def folders(self) -> dict[str, str]:
        """Name -> what it is; best/ only where this run has one, final/ only where it has not collapsed."""
        progress = self.progress
        notes = (
            {BEST_EXPORT: note_of(BEST_EXPORT, progress.best.step, progress.best.scores)}
            if progress.best
            else {}
        )
        if not collapse(progress.scores):
            notes[FINAL_EXPORT] = note_of(FINAL_EXPORT, progress.step, progress.scores)
        return {name: note.what for name, note in notes.items() if (self.folder / name).is_dir()}

    @property
    def warnings(self) -> list[str]:
        """That nothing usable came out, or that training made the encoder worse."""
        worse = decline(self.progress.best.scores) if self.progress.best else None
        if not self.folders:
            return [f"this run has no usable encoder. {ADVICE} Give it another run.dir"]
        if collapse(self.progress.scores):
            return [
                f"final/ has collapsed and cannot be used; best/ is {self.folders.get(BEST_EXPORT, 'gone')}"
            ]
        return [f"best/ is {worse}. {ADVICE}"] if worse else []

    @property
    def next(self) -> list[str]:
        """What to write next."""
        if not self.folders:
            return []
        load = f"SentenceTransformer('{self.folder / next(iter(self.folders))}')"
        worse = self.progress.best and decline(self.progress.best.scores)
        return (
            [f"{self.encoder} is the better encoder; {load} is what training made of it"] if worse else [load]
        )

    @property
    def verdict(self) -> str:
        """One line for the trackers; "" where nothing was measured before training."""
        scores = self.progress.best.scores if self.progress.best else self.progress.scores
        return collapse(scores) or decline(scores) or improvement(scores) or ""

    def contents(self) -> str:
        """What the folder holds, in words."""
        checkpoints = [each.name for each in directory.folders(self.folder / directory.CHECKPOINTS)]
        parts = [f"{name}/ ({what})" for name, what in self.folders.items()]
        parts += ["final/ (collapsed)"] if collapse(self.progress.scores) else []
        return ", ".join([*parts, f"checkpoints {', '.join(checkpoints)}", "metrics.jsonl, config.yaml"])
