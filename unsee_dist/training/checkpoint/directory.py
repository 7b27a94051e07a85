"""The folders of checkpoints: which are complete, which one a run continues from, which are removed.

A folder is valid when its manifest can be read and every file in it has the bytes that were written. Nothing
here reads the pointer `newest` to decide: it is for people and scripts. The ranks of a run share the work (resume.py).
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from unsee_dist.errors import UserError
from unsee_dist.files import atomic, contents
from unsee_dist.training.checkpoint.manifest import Manifest, OtherFormat, StoredFile, read_manifest
from unsee_dist.training.checkpoint.parts import all_parts, check_stored, check_values

CHECKPOINTS = "checkpoints"  # in a run's folder
POINTER = "newest"
NAMED = re.compile(r"step-\d{8,}")
LEFTOVER = re.compile(r"\.step-\d{8,}\.(new|old|going)")  # of a kill while one was saved or removed
THREADS = 4  # that read files at once: a digest is made without Python's lock


def checkpoint_name(step: int) -> str:
    """The folder of the checkpoint after a step."""
    return f"step-{step:08d}"


def folders(checkpoints: Path) -> list[Path]:
    """step-XXXXXXXX folders, oldest first. A copy under another name is the user's: never continued from, never removed."""
    ours = (path for path in checkpoints.glob("step-*") if NAMED.fullmatch(path.name) and path.is_dir())
    return sorted(ours, key=lambda path: int(path.name.removeprefix("step-")))


def is_copy(folder: Path, manifest: Manifest) -> bool:
    """Whether somebody has given a checkpoint the name of another step."""
    return NAMED.fullmatch(folder.name) is not None and folder.name != checkpoint_name(manifest.step)


def newest_valid(
    checkpoints: Path, check: Callable[[Path], Manifest], candidates: Sequence[Path] | None = None
) -> tuple[Path | None, list[str]]:
    """The newest valid folder, and what is wrong with newer ones. `check` raises UserError for a damaged one.

    candidates: the folders, oldest first; None = those that are there. (None, []) when there never was a checkpoint. Raises
    UserError when there are some, or a pointer to one, and none is valid: a run must not start from scratch without a word.
    """
    problems: list[str] = []
    candidates = folders(checkpoints) if candidates is None else candidates
    for folder in reversed(candidates):
        try:
            check(folder)
        except (
            OtherFormat
        ):  # it is complete: an older one in its place would lose steps, and the next save would remove it
            raise
        except UserError as error:
            problems.append(str(error))
        else:
            return folder, problems
    pointer = checkpoints / POINTER
    if pointer.exists() and _pointed(pointer) not in {folder.name for folder in candidates}:
        problems.append(f"{pointer} names {_pointed(pointer)}, which does not exist")
    if problems:
        raise UserError(
            f"No valid checkpoint in {checkpoints}: {'; '.join(problems)}. Restore one, or give the run a new run.dir."
        )
    return None, []


def verify(folder: Path, values: bool = False) -> Manifest:
    """The manifest, after every file was read and compared, and every element found once; else UserError.

    values: look at every number, too, as loading does.
    """
    manifest = read_listed(folder)
    wrong = wrong_files(folder, manifest.files)
    if wrong:
        raise UserError(wrong[0])
    for file in manifest.files if values else ():
        check_values(folder, file)
    return manifest


def read_listed(folder: Path) -> Manifest:
    """The manifest, by which every element is in one file. Reads no other file. UserError: it is not so, or another step's."""
    manifest = read_manifest(folder)
    if is_copy(folder, manifest):
        raise UserError(f"{folder} holds step {manifest.step}: it is a copy under another name")
    all_parts(folder, manifest)
    return manifest


def wrong_files(folder: Path, files: Sequence[StoredFile]) -> list[str]:
    """What is wrong with each of these files that is not as it was written. Reads them, several at once."""
    with ThreadPoolExecutor(THREADS) as pool:
        return [wrong for wrong in pool.map(partial(_wrong, folder), files) if wrong]


def _wrong(folder: Path, file: StoredFile) -> str:
    try:
        check_stored(folder, file)
    except UserError as error:
        return str(error)
    return ""


def write_pointer(checkpoints: Path, folder: Path) -> None:
    """Make `newest` name a folder, by one atomic replacement."""
    atomic.write_file(checkpoints / POINTER, f"{folder.name}\n".encode())


def recover(checkpoints: Path) -> None:
    """Finish or undo the replacements that a kill interrupted. Call it before a run continues."""
    for leftover in [*checkpoints.glob(".step-*.old"), *checkpoints.glob(".step-*.new")]:
        atomic.recover_folder(leftover.with_name(leftover.stem[1:]))


def remove_old(newest: Path, keep: int, best_step: int | None) -> None:
    """Keep `newest`, the `keep` - 1 before it and the one of the best score; remove the others and interrupted saves.

    Checkpoints of later steps are removed too: they are damaged, or the run would have continued from them.
    """
    checkpoints = newest.parent
    best = None if best_step is None else checkpoints / checkpoint_name(best_step)
    every = folders(checkpoints)
    valid = every[: every.index(newest) + 1]
    for folder in every:
        if folder not in valid[-keep:] and folder != best and not _is_copy(folder):
            remove(folder)
    for leftover in checkpoints.glob(".step-*"):
        if LEFTOVER.fullmatch(leftover.name) and leftover.is_dir():
            shutil.rmtree(leftover)
    for leftover in checkpoints.glob(f".{POINTER}.*.partial"):
        leftover.unlink()


def _is_copy(folder: Path) -> bool:
    try:
        return is_copy(folder, read_manifest(folder))
    except UserError:
        return False


def _is_usable(folder: Path) -> bool:
    try:
        return not is_copy(folder, read_manifest(folder))
    except UserError:
        return False


def remove_by_name(checkpoints: Path, names: Iterable[str]) -> list[str]:
    """Remove checkpoints, and let `newest` name one that is left. Returns the names that are left, oldest first.

    UserError, and nothing is removed: there is none of that name, or none would be left that the run can continue from.
    """
    names = list(dict.fromkeys(names))
    known = {folder.name: folder for folder in folders(checkpoints)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"{checkpoints.parent} has no checkpoint {', '.join(unknown)}. It has: {', '.join(known) or 'none'}."
        )
    foreign = [str(known[name]) for name in names if contents.made_of(known[name]) is None]
    if foreign:
        raise UserError(
            f"{', '.join(foreign)} was not written by a training. Nothing was removed: do it yourself."
        )
    left = [folder for name, folder in known.items() if name not in names]
    if not left or (not any(map(_is_usable, left)) and any(_is_usable(known[name]) for name in names)):
        run = checkpoints.parent
        raise UserError(
            f"{', '.join(names)}: {run} would have no checkpoint left to continue from, and what it has trained would be lost. "
            f"Nothing was removed. To be rid of the run, remove its folder: rm -r {shlex.quote(str(run))}. To keep its encoders "
            f"(best/, final/) and its record alone: rm -r {shlex.quote(str(checkpoints))}."
        )
    for name in names:
        remove(known[name])
    write_pointer(checkpoints, left[-1])
    return [folder.name for folder in left]


def remove(folder: Path) -> None:
    """Remove what was written into a checkpoint: rename it first, so that a kill leaves none that looks complete. Not to the
    name that `recover_folder` uses, which would bring half of it back. A folder that no training has written stays."""
    if contents.made_of(folder) is None:
        return
    if folder.is_symlink():
        folder.unlink()
        return
    condemned = folder.with_name(f".{folder.name}.going")
    shutil.rmtree(condemned, ignore_errors=True)
    folder.rename(condemned)
    atomic.discard(condemned, folder)
    shutil.rmtree(condemned, ignore_errors=True)


def summaries(run: Path) -> Iterable[dict[str, object]]:
    """For `unsee checkpoint ls`: step, skipped, best, MiB, ranks, and whether the manifest is readable."""
    for folder in folders(run / CHECKPOINTS):
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
