"""What a tracker still has to send: the lines behind an offset of metrics.jsonl, tags, and the run's id."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unsee_dist.files.atomic import write_file


@dataclass
class Unsent:
    """Kept in mlflow.json of the run's folder from one start of the run to the next.

    key is ours and is written before the tracker's run is made, so that a run whose making was answered
    too late is found again instead of made twice. delivered: the run is over and the tracker has all of it.
    """

    key: str
    run_id: str | None
    tags: dict[str, str]
    delivered: bool = False

    def save(self, path: Path) -> None:
        """Replace the file in one move."""
        kept = {"key": self.key, "run_id": self.run_id, "tags": dict(self.tags), "delivered": self.delivered}
        write_file(path, json.dumps(kept))


def load(path: Path, run_id: str | None, tags: Mapping[str, str]) -> Unsent:
    """What `path` kept, with the given run id and tags before its own; a new key when there is no file."""
    try:
        kept = json.loads(path.read_text())
        delivered = kept.get("delivered", False)
        return Unsent(kept["key"], run_id or kept["run_id"], kept["tags"] | dict(tags), delivered)
    except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: the tracker is asked instead
        return Unsent(str(uuid.uuid4()), run_id, dict(tags))
