"""Index: what the shards of a corpus must be, and whether the index itself can be believed.

    fingerprint             digest over the shards' digests: the corpus's name
    shards[i]               name, bytes, sha256, sentences, and its blocks as columns
    shards[i].blocks        offset, length, xxh3, sentences

A block's bytes are its tar header, its payload and its padding, the last block's also the end of the archive: the
blocks of a shard fill it, so no byte is outside some checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

INDEX = "index.json"
FORMAT = 1


class Block(NamedTuple):
    """Where a block lies and what it must be."""

    shard: str
    offset: int  # bytes from the start of the shard
    length: int  # bytes
    xxh3: str  # hex of the 64-bit checksum
    sentences: int


def read_index(path: Path, sizes: bool = True) -> dict[str, Any]:
    """The corpus's index, checked against itself and, unless sizes is False, against the shards' sizes on disk."""
    if not path.is_dir():
        raise ValueError(
            f"data.shards = {path} does not exist; write `unsee prepare INPUT --out {path}` first."
        )
    if not (path / INDEX).is_file():
        raise ValueError(
            f"data.shards = {path} has no {INDEX}, so it is no prepared corpus or was interrupted; "
            f"write `unsee prepare INPUT --out {path}` first."
        )
    try:
        index = json.loads((path / INDEX).read_text("utf-8"))
        problem = _contradiction(index)
    except (ValueError, KeyError, TypeError) as error:
        problem = f"it cannot be read as an index ({type(error).__name__}: {error})"
    if problem:
        raise ValueError(f"{path / INDEX} is damaged or was edited: {problem}. {remedy(path)}")
    if sizes and (damage := _wrong_size(path, index)):
        raise ValueError(f"{damage}. {remedy(path)}")
    return index


def fingerprint(sha256s: Iterable[str]) -> str:
    """The corpus's name: a digest over its shards' digests, in order."""
    return hashlib.sha256("\n".join(sha256s).encode()).hexdigest()[:32]


def blocks_of(shard: dict[str, Any]) -> list[Block]:
    """The blocks of one shard of an index."""
    columns = shard["blocks"]
    rows = zip(columns["offset"], columns["length"], columns["xxh3"], columns["sentences"], strict=True)
    return [Block(shard["name"], *row) for row in rows]


def remedy(path: Path) -> str:
    """What to do about a damaged corpus."""
    return f"Copy the corpus again, or delete {path} and write `unsee prepare INPUT --out {path}`."


def _contradiction(index: dict[str, Any]) -> str | None:
    """What an index says against itself, or None."""
    if index["format"] != FORMAT:
        return f"it has format {index['format']!r} and this version reads {FORMAT}"
    shards = index["shards"]
    if not sum(shard["sentences"] for shard in shards):
        return "it holds no sentence"
    if index["fingerprint"] != fingerprint(shard["sha256"] for shard in shards):
        return "its fingerprint is not that of its shards' digests"
    for shard in shards:
        blocks = blocks_of(shard)
        if sum(b.sentences for b in blocks) != shard["sentences"] or min(b.sentences for b in blocks) < 1:
            return f"the sentences of {shard['name']} do not add up"
        ends = [0, *accumulate(b.length for b in blocks)]
        if [b.offset for b in blocks] != ends[:-1] or ends[-1] != shard["bytes"]:
            return f"the blocks of {shard['name']} do not fill its {shard['bytes']} bytes"
    return None


def _wrong_size(path: Path, index: dict[str, Any]) -> str | None:
    """The first shard that is missing or has another size, and its first block that suffers. Reads no shard."""
    first_block = 0
    for shard in index["shards"]:
        file = path / shard["name"]
        size = file.stat().st_size if file.is_file() else 0
        found = f"{size} bytes" if file.is_file() else "no such file"
        blocks = blocks_of(shard)
        if size != shard["bytes"] or not file.is_file():
            whole = sum(block.offset + block.length <= size for block in blocks)
            hit = min(whole, len(blocks) - 1)  # a file that grew: its last block no longer ends the archive
            return (
                f"{file} is damaged in block {first_block + hit} at offset {blocks[hit].offset}: "
                f"the shard should have {shard['bytes']} bytes, found {found}"
            )
        first_block += len(blocks)
    return None
