"""The checkpoint a run continues from: the newest valid one of its folder. Rank 0 lists the folders, and each file is read by
one rank to verify it.

resume: auto     continue run.dir; start when it never had a checkpoint
resume: never    start; an error when run.dir has checkpoints
resume: PATH     a checkpoint, or a run's folder: another run begins with its weights, target, optimizer and step, under its
                 own settings (training/start.py), while run.dir has no checkpoint of its own
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch.distributed as dist

from unsee_dist.distributed.engine import Engine
from unsee_dist.distributed.shared_errors import SharedUserError, share_errors
from unsee_dist.distributed.world import World, from_rank_0, print_on_rank_0
from unsee_dist.errors import UserError
from unsee_dist.files.remote import check_here
from unsee_dist.model.target import Target
from unsee_dist.model.unsee import Unsee
from unsee_dist.training.checkpoint import directory, state
from unsee_dist.training.checkpoint.manifest import NAME, Manifest, StoredFile, read_manifest
from unsee_dist.training.checkpoint.parts import RANK


def find_checkpoint(world: World, run: Path, resume: str) -> tuple[Path | None, bool]:
    """The folder to continue from, and whether it belongs to this run. Collective; UserError with what to change.

    Damaged checkpoints are named on stderr when an older one is used.
    """
    checkpoints, candidates = run / directory.CHECKPOINTS, list[Path]()
    with share_errors(world):
        if world.rank == 0:
            directory.recover(checkpoints)
            candidates = directory.folders(checkpoints)
            if resume == "never" and candidates:
                raise UserError(
                    f"resume = never, but {checkpoints} holds {candidates[-1].name}. Write resume: auto to continue it, or give "
                    "this run a run.dir of its own."
                )
    if resume == "never":
        return None, True
    own, problems = _newest_valid(world, checkpoints, from_rank_0(world, candidates))
    for problem in problems:
        print_on_rank_0(world, f"warning: {problem}; using {own} instead")
    if own is not None or resume == "auto":
        return own, True
    return of_other_run(world, Path(resume)), False


def of_other_run(world: World, path: Path) -> Path:
    """The checkpoint that `resume = path` names: itself, or a run's newest whole one. Collective; UserError: there is none."""
    checkpoints, candidates, is_checkpoint = path / directory.CHECKPOINTS, list[Path](), False
    with share_errors(world):
        if world.rank == 0:
            is_checkpoint = (path / NAME).exists()
            check_here(path, "resume = ", "write its folder.")
            if not is_checkpoint and not checkpoints.is_dir():
                raise UserError(
                    f"resume = {path} is neither a checkpoint nor a run's folder. Write auto, never, or one."
                )
            candidates = directory.folders(checkpoints)
    is_checkpoint, candidates = from_rank_0(world, (is_checkpoint, candidates))
    if is_checkpoint:
        with share_errors(world):
            verify_together(world, path)
        return path
    newest, _ = _newest_valid(world, checkpoints, candidates)
    if newest is None:
        raise SharedUserError(
            f"resume = {path} has no checkpoint yet. Write resume: auto to start without one."
        )
    return newest


def _newest_valid(
    world: World, checkpoints: Path, candidates: Sequence[Path]
) -> tuple[Path | None, list[str]]:
    """directory.newest_valid, by all ranks together. They go through the same folders, of which rank 0 has made the list."""
    newest: tuple[Path | None, list[str]] = None, []
    with share_errors(world):
        newest = directory.newest_valid(checkpoints, partial(verify_together, world), candidates)
    return newest  # noqa: RET504  (mypy takes share_errors for a block that may swallow errors)


def verify_together(world: World, folder: Path) -> Manifest:
    """directory.verify, each file read by one rank. Collective; the same UserError on all ranks."""
    manifest, refusal = None, None
    with share_errors(world):
        if world.rank == 0:
            try:
                manifest = directory.read_listed(folder)
            except UserError as error:
                refusal = error
    manifest, refusal = from_rank_0(world, (manifest, refusal))
    if refusal is not None:
        raise refusal
    assert manifest is not None
    wrong: list[list[str]] = [[] for _ in range(world.size)]
    with share_errors(world):
        wrong[world.rank] = directory.wrong_files(folder, _share(world, manifest.files))
    if world.size > 1:
        dist.all_gather_object(wrong, wrong[world.rank])
    all_wrong = [sentence for each in wrong for sentence in each]
    if all_wrong:
        raise UserError("; ".join(all_wrong))
    return manifest


def _share(world: World, files: Sequence[StoredFile]) -> list[StoredFile]:
    """The files that this rank reads to verify them: of the rank that wrote with its number, and every size-th after that. On
    as many ranks as have written, a rank then loads what it has just read."""
    of_ranks = [file for file in files if file.name.startswith(RANK)]
    others = [file for file in files if not file.name.startswith(RANK)]
    return of_ranks[world.rank :: world.size] + (others if world.rank == 0 else [])


def restore(folder: Path, engine: Engine[Unsee], target: Target | None) -> Manifest:
    """Fill engine and target from a folder; returns its manifest. Collective."""
    manifest = None
    with share_errors(engine.world):
        if engine.world.rank == 0:
            manifest = read_manifest(folder)
    manifest = from_rank_0(engine.world, manifest)
    assert manifest is not None
    state.load(folder, manifest, engine, target)
    return manifest
