"""JSON of unknown origin, read within bounds; and JSON that is sealed: it holds a digest of its other values.

A digest finds what a flipped bit or an edit has changed, in a number too, which is legal whatever it is.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import pydantic_core
import xxhash

from unsee_dist.errors import UserError, file_error

DIGEST = "digest"
Tree = dict[str, Any]


def open_regular(path: Path) -> IO[bytes]:
    """A file for reading. OSError: there is none, or it is a pipe or a device, which could be waited for without end."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    raise OSError(errno.EINVAL, "It is not a regular file", str(path))


def read_within(path: Path, most: int, remedy: str) -> bytes:
    """The bytes of a file. FileNotFoundError: there is none. UserError: it has more than `most` bytes, or cannot be read."""
    try:
        with open_regular(path) as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise file_error(f"{path} cannot be read ({error.strerror}). {remedy}", error) from error
    if len(data) > most:
        raise UserError(f"{path} is larger than {most >> 10} KiB, so it is not a {path.name}. {remedy}")
    return data


def parse_json(data: bytes | str) -> object:
    """A JSON text. ValueError: it is none, or is nested more than 200 deep."""
    return pydantic_core.from_json(data)


def sealed(tree: Mapping[str, Any]) -> Tree:
    """The values with their digest."""
    return {**tree, DIGEST: digest(tree)}


def digest(tree: Mapping[str, Any]) -> str:
    """Of all values but a digest, whatever the order of their keys."""
    others = {key: value for key, value in tree.items() if key != DIGEST}
    return xxhash.xxh3_128_hexdigest(json.dumps(others, sort_keys=True).encode())


def is_sealed(tree: Mapping[str, Any]) -> bool:
    """Whether the digest is there and that of the other values."""
    return tree.get(DIGEST) == digest(tree)
