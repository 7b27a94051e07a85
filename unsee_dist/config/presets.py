"""Finds configuration files: a path, or the name of a preset."""

from __future__ import annotations

import os
from pathlib import Path

from unsee_dist.config.section import at_home
from unsee_dist.config.shipped import shipped
from unsee_dist.config.spelling import closest
from unsee_dist.errors import MENDABLE, UserError

CONFIGS = shipped("configs")


def presets() -> dict[str, Path]:
    """Name -> file of every preset: configs/ here, then the package's; the first file of a name is used."""
    files: dict[str, Path] = {}
    for folder in (Path("configs"), CONFIGS):
        for path in sorted(folder.glob("*.yaml")):
            files.setdefault(path.stem, path)
    return files


def _near_file(name: str, beside: Path) -> str | None:
    """The YAML file of the named folder that was probably meant, as it is to be written; or None."""
    folder, asked = os.path.split(name)
    there = {path.stem: path.name for path in sorted((beside / folder).glob("*.y*ml"))}
    if not folder and Path(asked).suffix not in (".yaml", ".yml"):
        return None  # a preset's name
    meant = closest(Path(asked).stem, there)
    return os.path.join(folder, there[meant]) if meant else None


def find(name: str, beside: Path) -> Path:
    """The file of `name`: a path relative to the folder `beside`, or a preset with or without .yaml.

    Raises UserError with the closest preset; the message does not contain `name`.
    """
    name = at_home(name)
    try:
        path = next((each for each in (beside / name, beside / f"{name}.yaml") if each.is_file()), None)
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        raise UserError(f"cannot be looked at ({error.strerror}); write the path of a file") from error
    if path is not None:
        return path
    known = presets()
    bare = name.removesuffix(".yaml")
    if bare in known:
        return known[bare]
    if (beside / name).is_dir():
        raise UserError("is a folder; name a .yaml file in it")
    meant = _near_file(name, beside) or closest(Path(bare).name, known)
    hint = (
        f"did you mean {meant}?" if meant else f"presets are {', '.join(known) or 'none (no configs/ here)'}"
    )
    raise UserError(f"there is no such file or preset; {hint}")
