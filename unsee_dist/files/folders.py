"""Folders that are made with all above them, or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and what is missing above it; returns the new ones, the innermost first. OSError: none was made."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        remove_empty(new)
        raise
    return new


def remove_empty(folders: Iterable[Path]) -> None:
    """Those that have nothing in them, the innermost first."""
    for folder in folders:
        with suppress(OSError):  # not empty, or not there
            folder.rmdir()
