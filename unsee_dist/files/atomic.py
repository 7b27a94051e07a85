"""Files and folders that appear whole under their name, or not at all, on a disk that may fail at any instant.

    write_file      temporary name → bytes → fsync → rename → fsync of the folder
    atomic_folder   .NAME.new/ → every file fsynced → NAME/ renamed to .NAME.old → .NAME.new renamed to NAME → .old removed

Of a folder that is replaced, files that are not ours are kept (contents.py). New files have the mode that the umask gives.

A kill at any moment leaves the old one, the new one, or both halves of an exchange, which `recover_folder` finishes.
No torch is imported: the command line uses this.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from unsee_dist.files import contents


def write_file(path: Path, data: bytes | str, staging: Path | None = None) -> None:
    """Write a file whole or not at all. data: bytes, or text to be encoded as UTF-8. See `write_pieces`."""
    write_pieces(path, [data.encode() if isinstance(data, str) else data], staging)


def write_pieces(path: Path, pieces: Iterable[bytes], staging: Path | None = None) -> None:
    """Write a file whole or not at all, of pieces that are made while it is written. staging: a folder on the same disk
    for the temporary file, by default the file's own.

    The temporary name is hidden, and holds the machine and the process: the last process of a killed run never writes
    into a file of the next one.
    OSError, with the file's name: the old file is untouched, and nothing is left beside it.
    """
    temporary = (staging or path.parent) / f".{path.name}.{os.uname().nodename}.{os.getpid()}.partial"
    try:
        with temporary.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        temporary.unlink(missing_ok=True)  # a full disk needs the room
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None
        raise
    sync_folder(path.parent)


@contextmanager
def atomic_folder(folder: Path, owner: str = "") -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `folder` when the block ends; when it raises, nothing moves.

    owner: what it is made of (contents.py).
    """
    new = begin_folder(folder)
    try:
        yield new
        contents.write_contents(new, owner)
        sync_tree(new)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    finish_folder(folder)


def begin_folder(folder: Path) -> Path:
    """The empty temporary folder beside `folder`; `finish_folder` gives it its name. For what several processes fill."""
    recover_folder(folder)
    new = beside(folder, "new")
    new.mkdir(parents=True)
    return new


def finish_folder(folder: Path) -> None:
    """Put the filled temporary folder, which `sync_tree` has brought to the disk, in the place of `folder`."""
    new, old = beside(folder, "new"), beside(folder, "old")
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    sync_folder(folder.parent)
    discard(old, folder)


def recover_folder(folder: Path) -> None:
    """Finish or undo an exchange that a kill cut off: call before `folder` is read again, by one process."""
    old, new = beside(folder, "old"), beside(folder, "new")
    if old.exists() and not folder.exists():
        old.rename(folder)
    if old.exists():
        discard(old, folder)
    if new.exists():
        shutil.rmtree(new)


def discard(old: Path, folder: Path) -> None:
    """Remove what `folder` was before; what is not ours in it is kept beside `folder`, but not what is empty."""
    kept = [name for name in contents.foreign(old) if (old / name).lstat().st_size]
    if kept:
        contents.set_aside(old, folder, kept)
    shutil.rmtree(old, ignore_errors=True)


def beside(folder: Path, what: str) -> Path:
    """The hidden neighbour of a folder: .NAME.what"""
    return folder.with_name(f".{folder.name}.{what}")


def sync_tree(folder: Path) -> None:
    """Bring every file and folder below to the disk, each file with the mode that the umask gives here: safetensors makes
    its files readable by their owner alone."""
    mode = _mode_of_a_new_file(folder)
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            if stat.S_IMODE(path.stat().st_mode) != mode:
                path.chmod(mode)
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def _mode_of_a_new_file(folder: Path) -> int:
    probe = folder / ".mode"  # the umask itself can only be read by changing it, for all threads
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    return mode


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk: what was renamed into it stays renamed."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
