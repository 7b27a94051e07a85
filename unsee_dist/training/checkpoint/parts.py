"""The parts of the parameters in a checkpoint: which file holds which, by its manifest, and whether the files are so.

    master/NAME@START    elements START, START+1, ... of the flattened parameter NAME, fp32
    exp_avg, exp_avg_sq  Adam's moments of the same parameters; ema: the target's copy, of the same or fewer

Every element is stored exactly once. The manifest lists "master,exp_avg,exp_avg_sq,ema/NAME@START+ELEMENTS" for a file with these
four, so that a rank opens the files that hold what it needs, and no other. No torch at import: the command line verifies
checkpoints.
"""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open

from unsee_dist.errors import UserError, file_error, system_error
from unsee_dist.training.checkpoint.manifest import KIND, NUMBER, PART, Manifest, StoredFile

ADAM = ("exp_avg", "exp_avg_sq")
RANK = "rank-"
BUFFERS = "buffers.safetensors"
KEY = re.compile(rf"({KIND})/(.+)@({NUMBER})")


class StoredPart(NamedTuple):
    """Elements start..stop of `kind` of a flattened parameter, under `key` in the file of this name."""

    kind: str
    name: str
    start: int
    stop: int
    file: str

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.name}@{self.start}"


Parts = dict[tuple[str, str], list[StoredPart]]  # (kind, name of the parameter) -> parts in order


def listed(elements: Mapping[str, int]) -> tuple[str, ...]:
    """The manifest's list of a file with so many elements under each key. Keys that are those of no part are left out."""
    kinds: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    for key, number in elements.items():
        if (match := KEY.fullmatch(key)) is not None:
            kinds[match[2], match[3], number].append(match[1])
    return tuple(f"{','.join(of)}/{name}@{start}+{number}" for (name, start, number), of in kinds.items())


def parts_in(files: Iterable[StoredFile]) -> Iterator[StoredPart]:
    """What the manifest says is in these files. Opens none."""
    for file in files:
        for each in file.parts:
            match = PART.fullmatch(each)
            assert match is not None, each  # the manifest was checked when it was read
            start = int(match[3])
            for kind in match[1].split(","):
                yield StoredPart(kind, match[2], start, start + int(match[4]), file.name)


def all_parts(folder: Path, manifest: Manifest) -> Parts:
    """Where every element is. UserError: one is missing or there twice."""
    if BUFFERS not in {file.name for file in manifest.files}:
        raise UserError(f"{folder} is damaged: it has no {BUFFERS}")
    parts: Parts = defaultdict(list)
    for part in parts_in(manifest.files):
        parts[part.kind, part.name].append(part)
    _check_coverage(folder, parts)
    return dict(parts)


def check_stored(folder: Path, stored: StoredFile) -> None:
    """Read a file. UserError: it has not the bytes that were written, or not the parts that the manifest lists."""
    path = folder / stored.name
    try:
        check_regular(path)
        size = path.stat().st_size
        if size != stored.bytes:
            raise UserError(f"{path} has {size} bytes, {stored.bytes} were written")
        if digest(path) != stored.xxh3:
            raise UserError(f"{path} has changed since it was written (checksum)")
    except OSError as error:
        raise file_error(f"{path} cannot be read ({error.strerror})", error) from error
    _check_keys(path, stored)


def check_regular(path: Path) -> None:
    """UserError: a pipe, a device, or a link that leads out of the folder. OSError: there is none."""
    if stat.S_ISLNK(path.lstat().st_mode) and path.resolve().parent != path.parent.resolve():
        raise UserError(f"{path} is a link to {os.readlink(path)}: a checkpoint holds its own files")
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{path} is not a regular file")


def digest(path: Path) -> str:
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            state.update(chunk)
    return state.hexdigest()


def open_tensors(path: Path, framework: str) -> safe_open:
    """A safetensors file. UserError: it is damaged."""
    try:
        return safe_open(path, framework=framework)
    except SafetensorError as error:
        cause = system_error(error)
        raise file_error(f"{path} cannot be read ({error})", cause or OSError(error)) from error


def _check_keys(path: Path, stored: StoredFile) -> None:
    """Reads the header only."""
    expected = {part.key: part.stop - part.start for part in parts_in([stored])}
    file = open_tensors(path, "np")
    if not stored.name.startswith(RANK):
        if expected:
            raise UserError(f"{path} is damaged: {min(expected)} is listed, and is not the file of a rank")
        return
    keys = set(file.keys())
    for key in sorted(keys | expected.keys()):
        part = file.get_slice(key) if key in keys else None
        if part is not None and (
            KEY.fullmatch(key) is None or len(part.get_shape()) != 1 or part.get_dtype() != "F32"
        ):
            raise UserError(f"{path} is damaged: {key} is not a part of a parameter in fp32")
        if part is None or [expected.get(key)] != part.get_shape():
            raise UserError(f"{path} is damaged: {key} is not there as the manifest lists it")


def sizes(parts: Parts, kind: str) -> dict[str, int]:
    """The elements of each parameter of a kind."""
    return {name: each[-1].stop for (of, name), each in parts.items() if of == kind}


def check_values(folder: Path, stored: StoredFile) -> None:
    """Read every number of a file. UserError: one is not finite, or the mean of a square is negative."""
    if not stored.parts:
        return
    file = open_tensors(folder / stored.name, "np")
    for part in parts_in([stored]):
        values = file.get_tensor(part.key)
        if not np.isfinite(values).all() or (part.kind == "exp_avg_sq" and (values < 0).any()):
            raise UserError(no_number(folder, part.kind, part.name))


def no_number(folder: Path, kind: str, name: str) -> str:
    """The sentence about a value that training cannot have written."""
    return f"{folder} is damaged: {kind} of {name} has values that are not finite, or squares below 0"


def _check_coverage(folder: Path, parts: Parts) -> None:
    for (kind, name), each in parts.items():
        each.sort(key=lambda part: (part.start, part.stop))
        end = 0
        for part in each:
            if part.start != end:
                what = "twice" if part.start < end else "not at all"
                raise UserError(
                    f"{folder} is damaged: element {min(part.start, end)} of {kind} {name} is there {what}"
                )
            end = part.stop
    masters, ema = sizes(parts, "master"), sizes(parts, "ema")
    for kind in ADAM:
        if sizes(parts, kind) != masters:
            raise UserError(
                f"{folder} is damaged: {kind} is not of the same parameters as the master weights"
            )
    if not ema.items() <= masters.items():
        raise UserError(
            f"{folder} is damaged: the target is not of the same parameters as the master weights"
        )
