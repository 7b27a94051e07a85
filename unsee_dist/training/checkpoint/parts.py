"""The tensors of a checkpoint by parameter, whichever file they lie in, and whether they are whole.

    master/NAME@START    elements START, START+1, ... of the flattened parameter NAME, fp32
    exp_avg, exp_avg_sq  Adam's moments of the same parameters; ema: the target's copy, of the same or fewer

Every element is stored exactly once. No torch at import: the command line verifies checkpoints.
"""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from unsee_dist.errors import UserError, file_error, system_error
from unsee_dist.training.checkpoint.manifest import Manifest

ADAM = ("exp_avg", "exp_avg_sq")
RANK = "rank-"
BUFFERS = "buffers.safetensors"
KEY = re.compile(r"(master|exp_avg|exp_avg_sq|ema)/(.+)@(0|[1-9][0-9]{0,15})")


class Part(NamedTuple):
    """Elements start..stop of a flattened parameter; `key` names them in `file`."""

    start: int
    stop: int
    file: safe_open
    key: str


Parts = dict[tuple[str, str], list[Part]]  # (kind, name of the parameter) -> parts in order


def check_file(path: Path) -> None:
    """UserError: a pipe, a device, or a link that leads out of the folder. OSError: there is none."""
    if stat.S_ISLNK(path.lstat().st_mode) and path.resolve().parent != path.parent.resolve():
        raise UserError(f"{path} is a link to {os.readlink(path)}: a checkpoint holds its own files")
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{path} is no regular file")


def open_tensors(path: Path, framework: str) -> safe_open:
    """A safetensors file. UserError: it is damaged."""
    try:
        return safe_open(path, framework=framework)
    except SafetensorError as error:
        cause = system_error(error)
        raise file_error(f"{path} cannot be read ({error})", cause or OSError(error)) from error


def read_parts(folder: Path, manifest: Manifest, framework: str = "np") -> Parts:
    """Where every element is. Reads headers only. UserError: one is missing or there twice, or is no fp32."""
    if BUFFERS not in {file.name for file in manifest.files}:
        raise UserError(f"{folder} is damaged: it has no {BUFFERS}")
    parts: Parts = defaultdict(list)
    for stored in manifest.files:
        if not stored.name.startswith(RANK):
            continue
        path = folder / stored.name
        file = open_tensors(path, framework)
        for key in file.keys():  # noqa: SIM118 (safe_open is no dict)
            match, shape = KEY.fullmatch(key), file.get_slice(key).get_shape()
            if match is None or len(shape) != 1 or file.get_slice(key).get_dtype() != "F32":
                raise UserError(f"{path} is damaged: {key} is no part of a parameter in fp32")
            start = int(match[3])
            parts[match[1], match[2]].append(Part(start, start + shape[0], file, key))
    _check_coverage(folder, parts)
    return dict(parts)


def sizes(parts: Parts, kind: str) -> dict[str, int]:
    """The elements of each parameter of a kind."""
    return {name: each[-1].stop for (of, name), each in parts.items() if of == kind}


def check_values(folder: Path, parts: Parts) -> None:
    """Read every number. UserError: one is not finite, or the mean of a square is negative."""
    for (kind, name), each in parts.items():
        for part in each:
            values = part.file.get_tensor(part.key)
            if not np.isfinite(values).all() or (kind == "exp_avg_sq" and (values < 0).any()):
                raise UserError(no_number(folder, kind, name))


def no_number(folder: Path, kind: str, name: str) -> str:
    """The sentence about a value that training cannot have written."""
    return f"{folder} is damaged: {kind} of {name} has values that are not finite, or squares below 0"


def _check_coverage(folder: Path, parts: Parts) -> None:
    for (kind, name), each in parts.items():
        each.sort(key=lambda part: part[:2])
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
