"""The folders of checkpoints: which are whole, which is the one to continue from, which may go.

A folder is valid when its manifest can be read and every file in it has the bytes that were written. Nothing
here trusts the pointer `newest`: it is for people and scripts.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import xxhash

from unsee_dist.errors import UserError, file_error
from unsee_dist.files import atomic
from unsee_dist.training.checkpoint.manifest import Manifest, OtherFormat, read_manifest

POINTER = "newest"


def folders(checkpoints: Path) -> list[Path]:
    """step-XXXXXXXX folders, oldest first."""
    return sorted(path for path in checkpoints.glob("step-*") if path.is_dir())


def choose(checkpoints: Path, check: Callable[[Path], Manifest]) -> tuple[Path | None, list[str]]:
    """The newest valid folder, and what was wrong with newer ones. `check` raises ValueError for a damaged one.

    (None, []) when there never was a checkpoint. Raises ValueError when there are some, or a pointer to one, and
    none is valid: starting from scratch would be silent.
    """
    wrong: list[str] = []
    for folder in reversed(folders(checkpoints)):
        try:
            check(folder)
        except OtherFormat:  # whole: an older one in its place would lose steps, and the next save this one
            raise
        except UserError as error:
            wrong.append(str(error))
        else:
            return folder, wrong
    pointer = checkpoints / POINTER
    if pointer.exists():
        wrong.append(f"{pointer} names {_pointed(pointer)}, which is not there")
    if wrong:
        raise UserError(
            f"No valid checkpoint in {checkpoints}: {'; '.join(wrong)}. Restore one, or give the run a new run.dir."
        )
    return None, []


def verify(folder: Path, turn: int = 0, turns: int = 1) -> Manifest:
    """The manifest, after every file (or each `turns`-th from `turn`) was read and compared; else ValueError."""
    manifest = read_manifest(folder)
    for file in manifest.files[turn::turns]:
        path = folder / file.name
        try:
            size = path.stat().st_size
            if size != file.bytes:
                raise UserError(f"{path} has {size} bytes, {file.bytes} were written")
            if digest(path) != file.xxh3:
                raise UserError(f"{path} has changed since it was written (checksum)")
        except OSError as error:
            raise file_error(f"{path} cannot be read ({error.strerror})", error) from error
    return manifest


def digest(path: Path) -> str:
    found = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            found.update(chunk)
    return found.hexdigest()


def point(checkpoints: Path, folder: Path) -> None:
    """Make `newest` name a folder, in one replacement."""
    atomic.write_file(checkpoints / POINTER, f"{folder.name}\n".encode())


def recover(checkpoints: Path) -> None:
    """Finish or undo the replacements that a kill cut off: call before a run continues."""
    for left in [*checkpoints.glob(".step-*.old"), *checkpoints.glob(".step-*.new")]:
        atomic.recover_folder(left.with_name(left.stem[1:]))


def retain(newest: Path, keep: int, best_step: int | None) -> None:
    """Remove all but `newest`, the `keep` - 1 before it and the one of the best score, and what interrupted saves left.

    Those of later steps go, too: they are damaged, or the run would have continued from them.
    """
    checkpoints = newest.parent
    best = None if best_step is None else checkpoints / f"step-{best_step:08d}"
    until = [folder for folder in folders(checkpoints) if folder.name <= newest.name]
    for folder in folders(checkpoints):
        if folder not in until[-keep:] and folder != best:
            remove(folder)
    for left in checkpoints.glob(".step-*"):
        shutil.rmtree(left)
    for left in checkpoints.glob(f"{POINTER}.*"):
        left.unlink()


def remove(folder: Path) -> None:
    """Take a folder away: under another name first, so that a kill leaves none that looks whole. Not under that of
    `recover_folder`, which would bring half of it back."""
    going = folder.with_name(f".{folder.name}.going")
    shutil.rmtree(going, ignore_errors=True)
    folder.rename(going)
    shutil.rmtree(going)


def summaries(run: Path) -> Iterable[dict[str, Any]]:
    """For `unsee checkpoint ls`: step, skipped, best, MiB, ranks, and whether the manifest is readable."""
    for folder in folders(run / "checkpoints"):
        try:
            manifest = read_manifest(folder)
        except UserError as error:
            yield {"name": folder.name, "wrong": str(error)}
            continue
        yield {
            "name": folder.name,
            "step": manifest.step,
            "MiB": round(sum(file.bytes for file in manifest.files) / 2**20, 1),
            "ranks": sum(file.name.startswith("rank-") for file in manifest.files),
            "best": manifest.progress.best.value if manifest.progress.best else None,
        }


def _pointed(pointer: Path) -> str:
    try:
        return pointer.read_text(encoding="utf-8").strip() or "nothing"
    except (OSError, ValueError):
        return "something unreadable"
