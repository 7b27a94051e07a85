"""The checkpoint a run continues from: the newest valid one of its folder, chosen by rank 0 for all ranks.

resume: auto     continue run.dir; start when it never had a checkpoint
resume: never    start; an error when run.dir has checkpoints
resume: PATH     a checkpoint, or a run's folder: another run begins with its weights, target, optimizer and step, under its
                 own settings (training/start.py), while run.dir has no checkpoint of its own
"""

from __future__ import annotations

from pathlib import Path

from unsee_dist.distributed.engine import Engine
from unsee_dist.distributed.shared_errors import share_errors
from unsee_dist.distributed.world import World, from_rank_0, print_on_rank_0
from unsee_dist.errors import UserError
from unsee_dist.model.target import Target
from unsee_dist.model.unsee import Unsee
from unsee_dist.training.checkpoint import directory, state
from unsee_dist.training.checkpoint.manifest import NAME, Manifest, read_manifest


def find_checkpoint(world: World, run: Path, resume: str) -> tuple[Path | None, bool]:
    """The folder to continue from, and whether it belongs to this run. Collective; UserError with what to change.

    Damaged checkpoints are named on stderr when an older one is used.
    """
    chosen: tuple[Path | None, bool] = None, True
    with share_errors(world):
        if world.rank == 0:
            chosen = _find_on_rank_0(run, resume)
    return from_rank_0(world, chosen)


def _find_on_rank_0(run: Path, resume: str) -> tuple[Path | None, bool]:
    checkpoints = run / directory.CHECKPOINTS
    directory.recover(checkpoints)
    if resume == "never":
        existing = directory.folders(checkpoints)
        if existing:
            raise UserError(
                f"resume = never, but {checkpoints} holds {existing[-1].name}. Write resume: auto to continue it, or give "
                "this run a run.dir of its own."
            )
        return None, True
    own, problems = directory.newest_valid(checkpoints, directory.verify)
    for problem in problems:
        print_on_rank_0(World.alone(), f"warning: {problem}; using {own} instead")
    if own is not None or resume == "auto":
        return own, True
    return of_other_run(Path(resume)), False


def of_other_run(path: Path) -> Path:
    """The checkpoint that `resume = path` names: itself, or a run's newest whole one. UserError: there is none."""
    if (path / NAME).exists():
        directory.verify(path)
        return path
    if not (path / directory.CHECKPOINTS).is_dir():
        raise UserError(
            f"resume = {path} is neither a checkpoint nor a run's folder. Write auto, never, or one."
        )
    chosen, _ = directory.newest_valid(path / directory.CHECKPOINTS, directory.verify)
    if chosen is None:
        raise UserError(f"resume = {path} has no checkpoint yet. Write resume: auto to start without one.")
    return chosen


def restore(folder: Path, engine: Engine[Unsee], target: Target | None) -> Manifest:
    """Fill engine and target from a folder; returns its manifest. Collective."""
    with share_errors(engine.world):
        manifest = read_manifest(folder)
    state.load(folder, manifest, engine, target)
    return manifest
