"""What a tracker still has to send: the lines behind an offset of metrics.jsonl, tags, and the run's id."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READ_BYTES = 1 << 18  # at once; a line is far shorter


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
        new = path.with_suffix(".json.new")
        kept = {"key": self.key, "run_id": self.run_id, "tags": dict(self.tags), "delivered": self.delivered}
        new.write_text(json.dumps(kept))
        new.replace(path)


def load(path: Path, run_id: str | None, tags: Mapping[str, str]) -> Unsent:
    """What `path` kept, with the given run id and tags before its own; a new key when there is no file."""
    try:
        kept = json.loads(path.read_text())
        delivered = kept.get("delivered", False)
        return Unsent(kept["key"], run_id or kept["run_id"], kept["tags"] | dict(tags), delivered)
    except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: the tracker is asked instead
        return Unsent(str(uuid.uuid4()), run_id, dict(tags))


def added(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """The whole lines after `offset` and the offset behind them; a line still being written waits."""
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        text = file.read(READ_BYTES)
    whole = text[: text.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], offset + len(whole)
