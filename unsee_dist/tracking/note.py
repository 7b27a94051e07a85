"""unsee.json in best/ and final/: of which step of its run the encoder is, and what its evaluation says of it.

    {"format": 1, "step": 150, "what": "the best of ...", "collapsed": null, "worse": null}

`unsee evaluate` and `unsee export` read it: what training called collapsed is collapsed for them, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unsee_dist.files.records import RecordFile
from unsee_dist.metrics.names import best_metric
from unsee_dist.metrics.verdict import DIGITS, collapse, decline


@dataclass(frozen=True)
class ExportNote:
    """what: in words. collapsed, worse: sentences, None where they do not hold."""

    step: int
    what: str
    collapsed: str | None = None
    worse: str | None = None


EXPORTS = ("best", "final")  # folders of a run that sentence-transformers loads
BEST_EXPORT, FINAL_EXPORT = EXPORTS
NOTE = RecordFile("unsee.json", ExportNote, version=1, remedy="Export the encoder again.")


def note_of(name: str, step: int, scores: Mapping[str, float]) -> ExportNote:
    """The note in a run's folder `name`, of the step whose evaluation gave these scores."""
    deciding = best_metric(scores)
    score = f", {deciding[0]} {deciding[1]:.{DIGITS.get(deciding[0], 3)}f}" if deciding else ""
    what = f"the last step, {step}{score}"
    if name == BEST_EXPORT:
        what = f"the best evaluation after training began, of step {step}{score}"
    return ExportNote(step, what, collapse(scores), decline(scores))


def write_note(folder: Path, note: ExportNote) -> None:
    """Write unsee.json, and the same for people at the end of README.md."""
    NOTE.write(folder, note)
    sentences = [f"This is {note.what}."]
    sentences += [f"{text[0].upper()}{text[1:]}." for text in (note.collapsed, note.worse) if text]
    with (folder / "README.md").open("a", encoding="utf-8") as readme:
        readme.write("\n## In its run\n\n" + " ".join(sentences) + "\n")
