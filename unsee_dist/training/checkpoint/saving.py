"""Save: every rank writes its part once; the folder appears under its name when it is complete.

    snapshot → .step-X.new/: files, fsync, digests → manifest → rename → pointer `newest` → retention

In the background a thread does all but the snapshot, over a process group of its own, one save at a time. A kill at
any moment leaves the folders that were complete before, or one more.
"""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from unsee_dist.distributed.engine import Engine
from unsee_dist.distributed.loss_scale import LossScale
from unsee_dist.distributed.shared_errors import share_errors
from unsee_dist.distributed.world import World
from unsee_dist.errors import UserError, refusals
from unsee_dist.files import atomic, contents
from unsee_dist.files.room import require_room
from unsee_dist.model.target import Target
from unsee_dist.model.unsee import Unsee
from unsee_dist.supervision.phases import failpoint, register_background_thread, waiting_for
from unsee_dist.training.checkpoint import directory, state
from unsee_dist.training.checkpoint.manifest import NAME, CheckpointInfo, Manifest, StoredFile
from unsee_dist.training.checkpoint.parts import digest, listed
from unsee_dist.training.progress import Progress

THREAD = "checkpoint"  # name of the background thread, which the watchdog asks for
REPAIR = "Free space or repair the folder, then write the same command again: it continues."
POINTER_OR_OLD = "the pointer to it could not be written, or an older checkpoint not be removed"
TensorFiles = dict[str, dict[str, Tensor]]  # file name -> key -> tensor


@dataclass(frozen=True)
class SaveJob:
    """One save. keep: newest checkpoints that stay."""

    folder: Path
    files: TensorFiles
    info: CheckpointInfo
    adam_updates: int
    loss_scale: LossScale | None
    keep: int

    @property
    def step(self) -> int:
        return self.info.progress.step


class Saver:
    """Saves of one run. Every method is collective. SharedUserError on all ranks when one of them fails."""

    def __init__(self, world: World, background: bool) -> None:
        self.world, self.background = world, background
        self._group = dist.new_group(backend="gloo") if world.size > 1 else None
        self._thread: threading.Thread | None = None
        register_background_thread(THREAD, self._group)
        self._error: BaseException | None = None  # of the thread, raised by the next `wait`
        self.saved: int | None = None  # the step of the newest complete checkpoint of this process

    def save(
        self, folder: Path, engine: Engine[Unsee], target: Target | None, info: CheckpointInfo, keep: int
    ) -> None:
        """Write `folder` (…/step-XXXXXXXX); in the background, wait only for the previous save and the snapshot."""
        self.wait()
        files = state.files(engine, target)
        progress = Progress()
        progress.restore(info.progress)  # a copy: training continues meanwhile
        info = replace(info, progress=progress)
        if not self.background:
            self._run(SaveJob(folder, files, info, engine.updates(), copy(engine.loss_scale), keep))
            return
        files = {n: {k: t.to("cpu", copy=True) for k, t in each.items()} for n, each in files.items()}
        job = SaveJob(folder, files, info, engine.updates(), copy(engine.loss_scale), keep)
        self._thread = threading.Thread(target=self._run_in_thread, args=(job,), name=THREAD, daemon=True)
        self._thread.start()

    def require_room(self, run: Path, engine: Engine[Unsee], target: Target | None) -> None:
        """Before the first step: SharedUserError when the disk of a run cannot hold one checkpoint."""
        with share_errors(self.world):
            if self.world.rank == 0:
                _require_room(run / directory.CHECKPOINTS, state.files(engine, target), self.world.size)

    def wait(self) -> None:
        """Wait until the running save is on the disk. Raises its error."""
        if self._thread is not None:
            with waiting_for(THREAD):
                self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run_in_thread(self, job: SaveJob) -> None:
        try:
            self._run(job)
        except BaseException as error:  # raised by the next `wait`, not lost in a thread
            self._error = error

    def _run(self, job: SaveJob) -> None:
        """All of a save but the snapshot. An error of one rank ends the save on all ranks, so that none waits."""
        failpoint("save.begin", job.step)
        with share_errors(self.world, self._group):
            new = _begin(job, self.world.size) if self.world.rank == 0 else atomic.beside(job.folder, "new")
        try:
            with share_errors(self.world, self._group):
                written = [_write(new / name, tensors) for name, tensors in job.files.items()]
                failpoint("save.written", job.step)
        except Exception:
            if self.world.rank == 0:
                shutil.rmtree(new, ignore_errors=True)
            raise
        files = self._files_of_all_ranks(written)
        with share_errors(self.world, self._group):
            if self.world.rank == 0:
                _publish(new, job, files)
        self.saved = job.step

    def _files_of_all_ranks(self, own: list[StoredFile]) -> tuple[StoredFile, ...]:
        """The files of all ranks, in rank order."""
        per_rank: list[list[StoredFile]] = [own] * self.world.size
        if self._group is not None:
            dist.all_gather_object(per_rank, own, group=self._group)
        return tuple(file for files in per_rank for file in files)


def _begin(job: SaveJob, ranks: int) -> Path:
    """The temporary folder, empty, on a disk that can hold the save."""
    with _saving(job.folder.parent):
        new = atomic.begin_folder(job.folder)
    try:
        _require_room(new.parent, job.files, ranks)
    except UserError:
        new.rmdir()
        raise
    return new


def _require_room(checkpoints: Path, files: TensorFiles, ranks: int) -> None:
    """UserError: the disk cannot hold a checkpoint of which every rank writes about as much as this one."""
    own = sum(tensor.numel() * tensor.element_size() for each in files.values() for tensor in each.values())
    remedy = "Free some space, or lower checkpoint.keep, then write the same command again: it continues."
    require_room(checkpoints, ranks * own, "A checkpoint", remedy)


def _publish(new: Path, job: SaveJob, files: tuple[StoredFile, ...]) -> None:
    info = job.info
    manifest = Manifest(
        info.identity, info.progress, info.mlflow_run, job.adam_updates, job.loss_scale, files
    )
    best = job.info.progress.best
    with _saving(job.folder.parent):
        atomic.write_file(new / NAME, manifest.to_json())
        contents.write_contents(new, "")
        atomic.sync_tree(new)
    failpoint("save.manifest", job.step)
    with refusals(
        lambda error: f"The files of {job.folder} are written, but it cannot get its name ({error}). {REPAIR}"
    ):
        atomic.finish_folder(job.folder)
    failpoint("save.renamed", job.step)
    with refusals(lambda error: f"{job.folder} is complete, but {POINTER_OR_OLD} ({error}). {REPAIR}"):
        directory.write_pointer(job.folder.parent, job.folder)
        failpoint("save.pointed", job.step)
        directory.remove_old(job.folder, job.keep, best.step if best else None)
    failpoint("save.end", job.step)


def _write(path: Path, tensors: dict[str, Tensor]) -> StoredFile:
    with _saving(path.parent.parent):  # safetensors has an error of its own for a full disk or a lost mount
        save_file({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        elements = {key: tensor.numel() for key, tensor in tensors.items()}
        return StoredFile(path.name, path.stat().st_size, digest(path), listed(elements))


def _saving(checkpoints: Path) -> AbstractContextManager[None]:
    """Errors of the system until the files of a checkpoint are on the disk, as a sentence."""
    return refusals(
        lambda error: (
            f"The checkpoint could not be written ({checkpoints}: {error}). Earlier checkpoints are unchanged. {REPAIR}"
        )
    )
