"""Which files of a folder are ours: a folder that we replace may hold files of the user's, and those are never deleted.

    .unsee.json   in the folder: whose it is, and the size and a digest of each file that was written

A file that is not listed, or has changed since, is the user's: a model card that was edited, a model in another format.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path

import xxhash

from unsee_dist.files.trees import parse_json
from unsee_dist.log import LOG

SMALL = 1 << 20  # bytes: larger files are weights, and reading them whole takes long
SAMPLE, SAMPLES = 1 << 16, 64  # bytes of a sample; how many of a large file


RECORD = ".unsee.json"
FORMAT = 2  # of the record; 1 had no digest of large files


def write_contents(folder: Path, owner: str) -> None:
    """List all files of a folder as ours, once it is filled."""
    prints = {path.relative_to(folder).as_posix(): _print_of(path) for path in files_of(folder)}
    prints.pop(RECORD, None)  # of a folder that this one was copied from
    tree = {"format": FORMAT, "owner": owner, "files": prints}
    (folder / RECORD).write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


def owner_name(path: Path) -> str:
    """A folder's name for a record: a digest of its whole path, which says nothing elsewhere."""
    return xxhash.xxh3_64_hexdigest(os.fsencode(os.path.realpath(path)))


def made_of(folder: Path) -> str | None:
    """What a folder was made of; None where no record says it."""
    owner = _record(folder).get("owner")
    return owner if isinstance(owner, str) else None


def foreign(folder: Path) -> list[str]:
    """The files that are not ours, by their paths in the folder; all of them where there is no record."""
    files = _record(folder).get("files")
    ours = files if isinstance(files, dict) else {}
    names = ((path, path.relative_to(folder).as_posix()) for path in files_of(folder))
    return [name for path, name in names if path.name != RECORD and not _is_ours(path, ours.get(name))]


def _record(folder: Path) -> dict[str, object]:
    """A record that cannot be read says nothing: then no file counts as ours."""
    try:
        record = parse_json((folder / RECORD).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and record.get("format") == FORMAT else {}


def set_aside(folder: Path, place: Path, names: Collection[str]) -> Path:
    """Move files out of a folder that will be removed to a new one, named after `place`, which is returned."""
    number = 1
    while (kept := place.with_name(f"{place.name}.kept-{number}")).exists():
        number += 1
    for name in names:
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).rename(kept / name)
    LOG.warning(f"{place} held files that unsee_dist did not write: they are in {kept} now")
    return kept


def files_of(folder: Path) -> list[Path]:
    """Everything below a folder that is no folder itself, links included."""
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _is_ours(path: Path, printed: object) -> bool:
    return (
        isinstance(printed, str) and path.is_file() and not path.is_symlink() and printed == _print_of(path)
    )


def _print_of(path: Path) -> str:
    """The size and a digest; of a large file, of samples: weights that were trained on differ in all of them."""
    size = path.stat().st_size
    state = xxhash.xxh3_64()
    with path.open("rb") as file:
        for place in range(0, size, max(SAMPLE, size // SAMPLES) if size > SMALL else SAMPLE):
            file.seek(place)
            state.update(file.read(SAMPLE))
    return f"{size} {state.hexdigest()}"
