"""Save: every rank writes its part once; the folder appears whole under its name, or not at all.

    snapshot → .step-X.growing/: files, fsync, digests → barrier → manifest → rename → pointer `newest` → retention

In the background all but the snapshot is a thread's, over a process group of its own, one save in flight. A kill at
any moment leaves the folders that were complete before, or one more.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from unsee_dist.distributed.engine import Engine
from unsee_dist.distributed.world import SharedUserError, World
from unsee_dist.errors import UserError
from unsee_dist.files import atomic
from unsee_dist.model.target import Target
from unsee_dist.supervision.phases import failpoint
from unsee_dist.training.checkpoint import directory, state

SPARE = 1.05  # of the bytes to be written: headers, manifest, the trackers' lines


@dataclass(frozen=True)
class Job:
    """One save. facts: what the manifest keeps beside the files. keep, best_step: for retention."""

    folder: Path
    files: dict[str, dict[str, Tensor]]
    facts: dict[str, Any]
    keep: int
    best_step: int | None


class Saver:
    """Saves of one run. Every method is collective. ValueError: what went wrong on any rank, on all of them."""

    def __init__(self, world: World, background: bool) -> None:
        self.world, self.background = world, background
        self._group = dist.new_group(backend="gloo") if world.size > 1 else None
        self._thread: threading.Thread | None = None
        self._wrong: str | None = None
        self._fault: BaseException | None = None  # of the thread: another rank is gone, or our own mistake
        self.saved: int | None = None  # the step of the newest complete checkpoint of this process

    def save(
        self,
        folder: Path,
        engine: Engine,
        target: Target | None,
        facts: dict[str, Any],
        *,
        keep: int = 2,
        best_step: int | None = None,
    ) -> None:
        """Write `folder` (…/step-XXXXXXXX); in the background, wait only for the save before and the snapshot."""
        self.wait()
        files = state.files(engine, target)
        if self.background:
            files = {n: {k: t.to("cpu", copy=True) for k, t in each.items()} for n, each in files.items()}
        job = Job(folder, files, facts | {"adam_updates": engine.updates()}, keep, best_step)
        if self.background:
            self._thread = threading.Thread(
                target=self._run_apart, args=(job,), name="checkpoint", daemon=True
            )
            self._thread.start()
        else:
            self._run(job)
            self._raise()

    def wait(self) -> None:
        """Until the save in flight is on the disk. Raises what it met."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._raise()

    def _raise(self) -> None:
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault
        wrong, self._wrong = self._wrong, None
        if wrong is not None:
            raise SharedUserError(wrong)  # every rank has it

    def _run_apart(self, job: Job) -> None:
        try:
            self._run(job)
        except BaseException as fault:  # raised by the next `wait`, not lost in a thread
            self._fault = fault

    def _run(self, job: Job) -> None:
        """All of a save but the snapshot. Ranks tell each other what failed, so that none waits for another."""
        growing = job.folder.with_name(f".{job.folder.name}.growing")
        step = int(job.facts["step"])
        failpoint("save.begin", step)
        self._wrong = self._on_rank_0(lambda: _make_room(growing, job, self.world.size))
        if self._wrong is not None:
            return
        said = self._gather(self._write(growing, job.files, step))
        mistakes = [each for each in said if isinstance(each, str)]
        if mistakes:
            self._wrong = mistakes[0]
            self._on_rank_0(lambda: shutil.rmtree(growing, ignore_errors=True))
            return
        entries = [entry for each in said for entry in each]
        self._wrong = self._on_rank_0(lambda: _publish(growing, job, entries, step))
        if self._wrong is None:
            self.saved = step

    def _write(
        self, growing: Path, files: dict[str, dict[str, Tensor]], step: int
    ) -> list[dict[str, Any]] | str:
        try:
            written = [_write(growing / name, tensors) for name, tensors in files.items()]
        except Exception as error:  # safetensors has a class of its own for a full disk
            return _sentence(growing, error)
        failpoint("save.written", step)
        return written

    def _on_rank_0(self, work: Any) -> str | None:
        wrong: list[str | None] = [None]
        if self.world.rank == 0:
            try:
                work()
            except (OSError, ValueError) as error:
                wrong = [_sentence(Path(), error)]
        if self._group is not None:
            dist.broadcast_object_list(wrong, src=0, group=self._group)
        return wrong[0]

    def _gather(self, mine: Any) -> list[Any]:
        said = [mine] * self.world.size
        if self._group is not None:
            dist.all_gather_object(said, mine, group=self._group)
        return said


def _make_room(growing: Path, job: Job, ranks: int) -> None:
    """The temporary folder, empty, on a disk that can hold the save."""
    shutil.rmtree(growing, ignore_errors=True)
    growing.mkdir(parents=True)
    mine = sum(t.numel() * t.element_size() for each in job.files.values() for t in each.values())
    needed, free = int(SPARE * ranks * mine), shutil.disk_usage(growing).free
    if free < needed:
        growing.rmdir()
        raise UserError(
            f"A checkpoint of about {needed / 2**20:.0f} MiB does not fit on the disk of {growing.parent}: "
            f"{free / 2**20:.0f} MiB are free. Free some space, or lower checkpoint.keep; the same command continues."
        )


def _publish(growing: Path, job: Job, entries: list[dict[str, Any]], step: int) -> None:
    manifest = job.facts | {"files": entries}
    manifest = json.loads(json.dumps(manifest))
    manifest["facts_xxh3"] = directory.digest_of_facts(manifest)
    atomic.write_file(growing / directory.MANIFEST, json.dumps(manifest, indent=1).encode())
    failpoint("save.manifest", step)
    directory.replace(growing, job.folder)
    failpoint("save.renamed", step)
    directory.point(job.folder.parent, job.folder)
    failpoint("save.pointed", step)
    directory.retain(job.folder, job.keep, job.best_step)
    failpoint("save.end", step)


def _write(path: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
    save_file({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return {"name": path.name, "bytes": path.stat().st_size, "xxh3": directory.digest(path)}


def _sentence(growing: Path, error: Exception) -> str:
    if isinstance(error, ValueError):
        return str(error)
    return (
        f"The checkpoint could not be written ({growing.parent}: {error}). The ones before are untouched: free space "
        "or mend the folder, and the same command continues."
    )
