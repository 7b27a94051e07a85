"""Whether a disk has room for what is going to be written: known before the work, not after it."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from unsee_dist.errors import UserError

TRIED = 1 << 16
SPARE = 1.05  # headers, small files beside the large one, the trackers' lines


def free_bytes(place: Path) -> int:
    """What is free on the disk of `place`, a folder or the path of one to come."""
    folder = next(each for each in (place.absolute(), *place.absolute().parents) if each.is_dir())
    return shutil.disk_usage(folder).free


def try_file(path: Path) -> None:
    """OSError: no file of TRIED bytes can be written under this name now. Before long work for one; nothing stays."""
    with suppress(FileNotFoundError):
        path.stat()  # a link to itself
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with tempfile.TemporaryFile(dir=path.parent) as probe:
        probe.write(bytes(TRIED))


def require_room(place: Path, size: int, what: str, remedy: str) -> None:
    """UserError: `size` bytes do not fit on the disk of `place`, a folder or the path of one to come."""
    needed, free = int(SPARE * size), free_bytes(place)
    if free < needed:
        raise UserError(
            f"{what} of about {needed / 2**20:.1f} MiB does not fit on the disk of {place}: {free / 2**20:.1f} MiB "
            f"are free. {remedy}"
        )
