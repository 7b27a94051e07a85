"""The package as it would be released from this working tree: its files, its wheel, and the packages that it needs beside it."""

from __future__ import annotations

import shutil
import site
import sys
from pathlib import Path

from integration.tiny import REPOSITORY, succeed

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def copy_repository(folder: Path) -> None:
    """What git would clone, with what was changed since."""
    for name in filter(None, succeed(["git", "-C", str(REPOSITORY), "ls-files"]).stdout.split("\n")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)


def build_wheel(folder: Path) -> Path:
    """Its path, in the folder."""
    source = folder / "source"
    copy_repository(source)
    succeed([*PIP, "wheel", "-q", "--no-deps", "--wheel-dir", str(folder), str(source)], timeout_s=600)
    (wheel,) = folder.glob("unsee_dist-*.whl")
    return wheel


def link_others(folder: Path) -> None:
    """All packages of this environment but unsee_dist: with the folder in PYTHONPATH, pip and Python find them there."""
    folder.mkdir()
    for place in map(Path, site.getsitepackages()):
        for entry in place.iterdir():
            if "unsee_dist" not in entry.name and entry.suffix != ".pth":
                (folder / entry.name).symlink_to(entry)
