"""The placement group of a worker group, by name in a file: so that the next attempt at a trial can remove it.

Ray removes the placement group of a training whose process was killed only through its dashboard, which may not run:
the next attempt would wait for ever for the processors that the one before still holds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unsee_dist.files.atomic import write_file


def record_placement(path: Path) -> Any:
    """A callback of Ray Train that writes the worker group's placement group into `path` once it has started."""
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback

    class RecordsPlacement(WorkerGroupCallback):
        def after_worker_group_start(self, worker_group: Any) -> None:
            state = worker_group.get_worker_group_state()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, state.placement_group_handle.placement_group.id.hex())

        def after_worker_group_shutdown(self, worker_group_context: Any) -> None:  # noqa: ARG002  (Ray calls it so)
            path.unlink(missing_ok=True)

    return RecordsPlacement()


def remove_placement(path: Path) -> None:
    """Remove the placement group that `path` names, if this cluster has it."""
    if not path.exists():
        return
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

    name = path.read_text(encoding="utf-8", errors="replace")
    if name in placement_group_table():
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))
    path.unlink()
