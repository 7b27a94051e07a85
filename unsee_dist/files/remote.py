"""Paths that are URLs: `s3://`, `gs://`, `https://`, `hf://`, `memory://` and what else fsspec knows."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from unsee_dist.errors import UserError


def is_remote(name: str) -> bool:
    """Whether a name is a URL."""
    return "://" in name


def is_refused(error: BaseException | None) -> bool:
    """Whether a store refuses this for good: no right, wrong credentials, or a status of 4xx. Too slow and too many pass."""
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EINVAL:
        return True
    status = getattr(error, "status", None)
    return isinstance(status, int) and 400 <= status < 500 and status not in (408, 429)


URL = re.compile(
    r"([A-Za-z][\w+.-]+):/+(.*)", re.DOTALL
)  # with one slash or several: a letter alone is a drive


def as_given(path: Path | str) -> str:
    """A path, or the URL as it was written: `Path` makes one slash of two."""
    url = URL.fullmatch(str(path))
    if url is None:
        return str(path)
    return f"{url[1]}:{'///' if url[1] == 'file' else '//'}{url[2]}"


def check_local(path: Path, what: str) -> None:
    """UserError: the path to write is what `Path` leaves of a URL (s3:/bucket/x)."""
    if URL.fullmatch(str(path)):
        raise UserError(
            f"{what} {as_given(path)} is a URL, and only a path on this machine can be written. Write one, and copy what is "
            "there afterwards."
        )


def check_here(path: Path | str, what: str, remedy: str) -> None:
    """UserError: a path to read is that of a URL, and nothing on this machine has such a name. what: the words before it."""
    if URL.fullmatch(str(path)) and not os.path.lexists(path):
        raise UserError(
            f"{what}{as_given(path)} is a URL, and this is read on this machine alone. Copy it to this machine, and {remedy}"
        )
