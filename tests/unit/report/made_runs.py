"""Folders as training leaves them, made by rule: settings, starts, metrics; no encoder and no checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unsee_dist.config import load
from unsee_dist.tracking.note import note_of, write_note

BEFORE = 60.0


def make_run(
    folder: Path,
    scores: Mapping[int, float] | None = None,
    *settings: str,
    steps: int = 40,
    reached: int | None = None,
    **more: Any,
) -> Path:
    """scores: dev/sts by step, 60 before training. more: what every evaluation also has."""
    folder.mkdir(parents=True)
    config = load("unsee-vicreg", [f"run.dir={folder}", f"train.steps={steps}", *settings])
    (folder / "config.yaml").write_text(config.as_yaml(), encoding="utf-8")
    environment = {"python": "3.11.9", "version.torch": "2.13.0", "host": "node-7", "device": "cpu"}
    starts = [{"step": 0, "time": 1.7e9, "ranks": 2, "changed": {}, "environment": environment}]
    write_lines(folder / "history.jsonl", starts)
    last = steps if reached is None else reached
    lines: list[dict[str, Any]] = []
    best = -1e9
    for step in range(last + 1):
        if step:
            terms = {"invariance": 3.0 / step, "variance": 2.0}
            rates = {"lr": 1e-4, "grad_norm": 1.0, "sentences_per_s": 100.0, "wait": 0.0}
            lines.append(
                {"step": step, "loss": 5.0 / step, **terms, **rates, "sentences": 8 * step, "skipped": 0}
            )
        if scores is not None and (step == 0 or step in scores):
            score = scores[step] if step else BEFORE
            better = step > 0 and score > best
            best = max(best, score) if step else best
            line = {"step": step, "dev/sts": score, "dev/effective_rank": 20.0 + step, "dev/std": 0.9}
            line |= {"dev/spectrum/1": 0.5, "dev/spectrum/2": 0.2, "dev/best": float(better)} | more
            lines.append(line | ({"dev/gain": score - BEFORE} if step else {}))
    for line in lines:
        line["time"] = 1.7e9 + line["step"]
    write_lines(folder / "metrics.jsonl", lines)
    return folder


def export(folder: Path, name: str, step: int) -> None:
    """The note of best/ or final/, without an encoder."""
    (folder / name).mkdir()
    write_note(folder / name, note_of(name, step, {"dev/sts": 61.0}))


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
