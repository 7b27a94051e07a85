"""Save: every rank writes its part once; the folder appears whole under its name, or not at all.

    snapshot → .step-X.new/: files, fsync, digests → manifest → rename → pointer `newest` → retention

In the background all but the snapshot is a thread's, over a process group of its own, one save in flight. A kill at
any moment leaves the folders that were complete before, or one more.
"""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from unsee_dist.distributed.engine import Engine
from unsee_dist.distributed.world import World, together
from unsee_dist.errors import UserError, file_error, system_error
from unsee_dist.files import atomic
from unsee_dist.model.target import Target
from unsee_dist.supervision.phases import failpoint, waiting_for, works_in_background
from unsee_dist.training.checkpoint import directory, state
from unsee_dist.training.checkpoint.manifest import NAME, Facts, Manifest, StoredFile
from unsee_dist.training.progress import Progress

THREAD = "checkpoint"  # its name, for whoever watches
SPARE = 1.05  # of the bytes to be written: headers, manifest, the trackers' lines
TensorFiles = dict[str, dict[str, Tensor]]  # file name -> key -> tensor


@dataclass(frozen=True)
class Job:
    """One save. keep: newest checkpoints that stay."""

    folder: Path
    files: TensorFiles
    facts: Facts
    adam_updates: int
    keep: int

    @property
    def step(self) -> int:
        return self.facts.progress.step


class Saver:
    """Saves of one run. Every method is collective. SharedUserError: what went wrong on any rank, on all of them."""

    def __init__(self, world: World, background: bool) -> None:
        self.world, self.background = world, background
        self._group = dist.new_group(backend="gloo") if world.size > 1 else None
        self._thread: threading.Thread | None = None
        works_in_background(THREAD)
        self._fault: BaseException | None = None  # of the thread, raised by the next `wait`
        self.saved: int | None = None  # the step of the newest complete checkpoint of this process

    def save(self, folder: Path, engine: Engine, target: Target | None, facts: Facts, keep: int = 2) -> None:
        """Write `folder` (…/step-XXXXXXXX); in the background, wait only for the save before and the snapshot."""
        self.wait()
        files = state.files(engine, target)
        progress = Progress()
        progress.restore(facts.progress)  # a copy: training goes on
        facts = replace(facts, progress=progress)
        if not self.background:
            self._run(Job(folder, files, facts, engine.updates(), keep))
            return
        files = {n: {k: t.to("cpu", copy=True) for k, t in each.items()} for n, each in files.items()}
        job = Job(folder, files, facts, engine.updates(), keep)
        self._thread = threading.Thread(target=self._run_in_thread, args=(job,), name=THREAD, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the save in flight is on the disk. Raises what it met."""
        if self._thread is not None:
            with waiting_for(THREAD):
                self._thread.join()
            self._thread = None
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def _run_in_thread(self, job: Job) -> None:
        try:
            self._run(job)
        except BaseException as fault:  # raised by the next `wait`, not lost in a thread
            self._fault = fault

    def _run(self, job: Job) -> None:
        """All of a save but the snapshot. What one rank meets ends the save on all, so that none waits for another."""
        failpoint("save.begin", job.step)
        with together(self.world, self._group):
            new = (
                _make_room(job, self.world.size) if self.world.rank == 0 else atomic.beside(job.folder, "new")
            )
        try:
            with together(self.world, self._group):
                written = [_write(new / name, tensors) for name, tensors in job.files.items()]
                failpoint("save.written", job.step)
        except Exception:
            if self.world.rank == 0:
                shutil.rmtree(new, ignore_errors=True)
            raise
        files = self._gather(written)
        with together(self.world, self._group):
            if self.world.rank == 0:
                _publish(new, job, files)
        self.saved = job.step

    def _gather(self, mine: list[StoredFile]) -> tuple[StoredFile, ...]:
        """The files of all ranks, in rank order."""
        found: list[list[StoredFile]] = [mine] * self.world.size
        if self._group is not None:
            dist.all_gather_object(found, mine, group=self._group)
        return tuple(file for each in found for file in each)


def _make_room(job: Job, ranks: int) -> Path:
    """The temporary folder, empty, on a disk that can hold the save."""
    try:
        new = atomic.begin_folder(job.folder)
    except OSError as error:
        raise file_error(_unwritten(job.folder.parent, error), error) from error
    mine = sum(t.numel() * t.element_size() for each in job.files.values() for t in each.values())
    needed, free = int(SPARE * ranks * mine), shutil.disk_usage(new).free
    if free < needed:
        new.rmdir()
        raise UserError(
            f"A checkpoint of about {needed / 2**20:.0f} MiB does not fit on the disk of {new.parent}: "
            f"{free / 2**20:.0f} MiB are free. Free some space, or lower checkpoint.keep; the same command continues."
        )
    return new


def _publish(new: Path, job: Job, files: tuple[StoredFile, ...]) -> None:
    manifest = Manifest(job.facts.identity, job.facts.progress, job.facts.mlflow_run, job.adam_updates, files)
    best = job.facts.progress.best
    try:
        atomic.write_file(new / NAME, manifest.to_json())
        failpoint("save.manifest", job.step)
        atomic.finish_folder(job.folder)
        failpoint("save.renamed", job.step)
        directory.point(job.folder.parent, job.folder)
        failpoint("save.pointed", job.step)
        directory.retain(job.folder, job.keep, best.step if best else None)
    except OSError as error:
        raise file_error(_unwritten(job.folder.parent, error), error) from error
    failpoint("save.end", job.step)


def _write(path: Path, tensors: dict[str, Tensor]) -> StoredFile:
    try:
        save_file({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return StoredFile(path.name, path.stat().st_size, directory.digest(path))
    except SafetensorError as error:  # its own class for what the system refused: a full disk, a lost mount
        refused = system_error(error)
        if refused is None:
            raise
        raise file_error(_unwritten(path.parent.parent, refused), refused) from error
    except OSError as error:
        raise file_error(_unwritten(path.parent.parent, error), error) from error


def _unwritten(checkpoints: Path, error: Exception) -> str:
    return (
        f"The checkpoint could not be written ({checkpoints}: {error}). The ones before are untouched: free space "
        "or mend the folder, and the same command continues."
    )
