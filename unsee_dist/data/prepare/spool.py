"""Spool: what can be read only once (standard input, <(zcat f), a FIFO) is copied into the work folder first."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import IO

import xxhash

from unsee_dist.data.prepare import formats, opening
from unsee_dist.data.prepare.opening import InputDescription
from unsee_dist.errors import UserError

STDIN = "-"
SPOOLED = "standard-input"
PIPE = "pipe-"


def is_spooled(name: str) -> bool:
    """Whether an input is read once only."""
    return name == STDIN or opening.is_pipe(name)


def check_once(names: list[str]) -> None:
    """UserError when something that can be read once is given twice."""
    for name, times in Counter(names).items():
        if times > 1 and is_spooled(name):
            raise UserError(f"{name} is given twice, and can be read only once. Give it once.")


def copy_name(name: str, number: int) -> str:
    """The file of an input in the work folder: number is its place among the inputs."""
    return SPOOLED if name == STDIN else PIPE + str(number) + "".join(formats.suffixes(name))


def in_given_words(sentence: str, copies: list[str], given: list[str]) -> str:
    """A sentence about a copy in the work folder, as one about what was given: the copy is removed with the folder."""
    for copy, name in zip(copies, given, strict=True):
        if copy != name:
            sentence = sentence.replace(f"{shlex.quote(copy)} > ", "FILE > ").replace(
                copy, "standard input" if name == STDIN else name
            )
    return sentence


def is_copy(path: Path) -> bool:
    """Whether a file of the work folder is such a copy."""
    return path.name == SPOOLED or path.name.startswith(PIPE)


def spool(name: str, number: int, folder: Path | None) -> InputDescription:
    """Describe the content of an input, and keep it in the folder under its copy_name. It depends on the content alone."""
    kept = copy_name(name, number)
    if name == STDIN:
        size, digest = _copy(sys.stdin.buffer, folder, kept)
        return InputDescription(STDIN, size, digest)
    with opening.opened(name) as pipe:
        size, digest = _copy(pipe, folder, kept)
    return InputDescription(kept, size, digest)


def _copy(source: IO[bytes], folder: Path | None, name: str) -> tuple[int, str]:
    digest, size = xxhash.xxh3_128(), 0
    with (folder / f"{name}.partial" if folder else Path(os.devnull)).open("wb") as file:
        while chunk := source.read(opening.CHUNK_BYTES):
            digest.update(chunk)
            size += file.write(chunk)
    if folder:
        Path(file.name).replace(folder / name)
    return size, digest.hexdigest()
