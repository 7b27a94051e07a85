"""mlflow.json in a run's folder: which run of the tracker it is, and what the tracker has not got yet."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from unsee_dist.files.records import RecordFile


@dataclass
class Unsent:
    """Kept from one start of the run to the next; the lines of metrics.jsonl after an offset are not in it.

    key is ours and is written before the tracker's run is made: a run whose making was answered too late is found by
    it instead of made twice. delivered: the run is over and the tracker has all of it.
    """

    key: str
    run_id: str | None
    tags: dict[str, str]
    delivered: bool = False

    def save(self, folder: Path) -> None:
        """Replace the file in one move."""
        FILE.write(folder, replace(self, tags=dict(self.tags)))  # another thread may add a tag meanwhile


FILE = RecordFile(
    "mlflow.json",
    Unsent,
    version=2,
    remedy="Delete it: MLflow is then asked by the checkpoint's id, or gets a new run.",
)


def load(folder: Path, run_id: str | None, tags: Mapping[str, str]) -> Unsent:
    """What `folder` has kept, with the given run id and tags before its own; a new key when there is no file.

    UserError: the file is damaged.
    """
    kept = FILE.read(folder)
    if kept is None:
        return Unsent(str(uuid.uuid4()), run_id, dict(tags))
    return replace(kept, run_id=run_id or kept.run_id, tags=kept.tags | dict(tags))
