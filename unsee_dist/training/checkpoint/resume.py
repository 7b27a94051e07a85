"""Where a run continues: the newest valid checkpoint of its folder, chosen by rank 0 for all.

resume: auto     continue run.dir; start when it never had a checkpoint
resume: never    start; refused when run.dir has checkpoints
resume: PATH     a checkpoint, or a run's folder: start from it while run.dir has no checkpoint of its own
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist

from unsee_dist.distributed.engine import Engine
from unsee_dist.distributed.world import World, print_on_rank_0, together
from unsee_dist.errors import UserError
from unsee_dist.model.target import Target
from unsee_dist.training.checkpoint import directory, state
from unsee_dist.training.checkpoint.manifest import NAME, Identity, Manifest, read_manifest


def find(world: World, run: Path, resume: str) -> tuple[Path | None, bool]:
    """The folder to continue from, and whether it is this run's own. Collective; ValueError with what to change.

    Damaged checkpoints are named on stderr when an older one serves.
    """
    found: list[Any] = [None, True]
    with together(world):
        if world.rank == 0:
            found = list(_find(run, resume))
    if world.size > 1:
        dist.broadcast_object_list(found, src=0)
    return found[0], found[1]


def _find(run: Path, resume: str) -> tuple[Path | None, bool]:
    checkpoints = run / "checkpoints"
    directory.recover(checkpoints)
    if resume == "never":
        have = directory.folders(checkpoints)
        if have:
            raise UserError(
                f"resume = never, but {checkpoints} holds {have[-1].name}. Write resume: auto to continue it, or give "
                "this run a run.dir of its own."
            )
        return None, True
    own, wrong = directory.choose(checkpoints, directory.verify)
    for each in wrong:
        print_on_rank_0(World.alone(), f"warning: {each}; using {own} instead")
    if own is not None or resume == "auto":
        return own, True
    return _other(Path(resume)), False


def _other(path: Path) -> Path:
    if (path / NAME).exists():
        directory.verify(path)
        return path
    if not (path / "checkpoints").is_dir():
        raise UserError(
            f"resume = {path} is neither a checkpoint nor a run's folder. Write auto, never, or one."
        )
    chosen, _ = directory.choose(path / "checkpoints", directory.verify)
    if chosen is None:
        raise UserError(f"resume = {path} has no checkpoint yet. Write resume: auto to start without one.")
    return chosen


def restore(folder: Path, engine: Engine, target: Target | None, identity: Identity) -> Manifest:
    """Fill engine and target from a folder; returns its manifest. Collective; ValueError names what differs."""
    with together(engine.world):
        manifest = read_manifest(folder)
        different = manifest.identity.differences(identity)
        if different:
            raise UserError(
                f"{folder} was trained with {'; '.join(different)}. It would be another run: give this one a run.dir of "
                "its own, or the settings back."
            )
    state.load(folder, manifest, engine, target)
    return manifest
