"""Paths that are URLs: `s3://`, `gs://`, `https://`, `hf://`, `memory://` and what else fsspec knows."""

from __future__ import annotations

import errno
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


def check_local(folder: Path, what: str) -> None:
    """UserError: the path of a folder to write into is what `Path` leaves of a URL (s3:/bucket/x)."""
    if re.match(r"[A-Za-z][\w+.-]+:/", str(folder)):
        url = re.sub("^([^:]+:/)(?!/)", r"\1/", str(folder))  # as it was written: Path makes one slash of two
        raise UserError(
            f"{what} {url} is a URL, and only a folder can be written into. Write a folder, and copy what is in it there."
        )
