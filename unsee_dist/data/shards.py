"""Shards: a prepared corpus, read by block, every byte verified.

    DIR/index.json          what the shards must be: written last, so a folder without it is no corpus
    DIR/shard-000000.tar    plain webdataset tar; a member is a block: 1,024 newline-joined sentences, `.txt`
    DIR/dev.tsv             held-out (query, answer) pairs, when asked for

A block's bytes are its tar header, its payload and its padding (the last block's also the end of the archive):
no byte of a shard is outside some checksum. Stock readers skip damage without a word; this one stops.
A sentence's id is its place in shard order (shard by shard, block by block, line by line), from 0.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

INDEX = "index.json"
FORMAT = 1


class Block(NamedTuple):
    """Where a block lies and what it must be."""

    shard: str
    offset: int  # bytes from the start of the shard
    length: int  # bytes
    xxh3: str  # hex of the 64-bit checksum
    sentences: int


class Shards:
    """A corpus written by `unsee prepare`.

        shards = Shards("corpus/")
        shards.sentences, len(shards.blocks), shards.fingerprint
        shards.read(0)          # the sentences of the first block, verified
        shards.sentence(70_000) # one sentence by its id

    Raises ValueError, one sentence, when the folder is no corpus, is empty, incomplete or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.index = read_index(self.path)
        self.fingerprint: str = self.index["fingerprint"]
        self.blocks = [block for shard in self.index["shards"] for block in _blocks(shard)]
        self.sizes = np.array([block.sentences for block in self.blocks], dtype=np.int64)
        self._ends = list(accumulate(int(size) for size in self.sizes))
        self.sentences = self._ends[-1]

    def read(self, block: int) -> list[str]:
        """The sentences of a block, after checking its bytes against the index."""
        expected = self.blocks[block]
        raw = self._bytes(expected)
        found = xxhash.xxh3_64_hexdigest(raw)
        if len(raw) != expected.length or found != expected.xxh3:
            raise ValueError(self._damage(block, f"{len(raw)} bytes with xxh3 {found}"))
        size = tarfile.TarInfo.frombuf(raw[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape").size
        payload = raw[tarfile.BLOCKSIZE : tarfile.BLOCKSIZE + size]
        sentences = payload.decode("utf-8").split("\n")
        if len(sentences) != expected.sentences:
            raise ValueError(self._damage(block, f"{len(sentences)} sentences"))
        return sentences

    def find(self, sentence_id: int) -> tuple[int, int]:
        """Block of a sentence and its line there."""
        block = bisect_right(self._ends, sentence_id)
        return block, sentence_id - (self._ends[block] - int(self.sizes[block]))

    def sentence(self, sentence_id: int) -> str:
        """One sentence by its id."""
        if not 0 <= sentence_id < self.sentences:
            raise ValueError(
                f"sentence {sentence_id} does not exist; ids run from 0 to {self.sentences - 1}."
            )
        block, line = self.find(sentence_id)
        return self.read(block)[line]

    def head(self, n: int) -> list[str]:
        """The first n sentences by id (fewer when the corpus is smaller)."""
        found: list[str] = []
        for block in range(len(self.blocks)):
            if len(found) >= n:
                break
            found.extend(self.read(block))
        return found[:n]

    def _bytes(self, block: Block) -> bytes:
        try:
            with (self.path / block.shard).open("rb") as file:
                file.seek(block.offset)
                return file.read(block.length)
        except OSError as error:
            raise ValueError(
                f"{self.path / block.shard} cannot be read ({error.strerror}). {_remedy(self.path)}"
            ) from error

    def _damage(self, block: int, found: str) -> str:
        want = self.blocks[block]
        return (
            f"{self.path / want.shard} is damaged in block {block} at offset {want.offset}: expected {want.length} "
            f"bytes with xxh3 {want.xxh3} and {want.sentences} sentences, found {found}. {_remedy(self.path)}"
        )


def read_index(path: Path) -> dict[str, Any]:
    """The corpus's index, checked against itself and against the sizes of the shards on disk."""
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
        problem = _problem(path, index)
    except (ValueError, KeyError, TypeError) as error:
        problem = f"it cannot be read as an index ({type(error).__name__}: {error})"
    if problem:
        raise ValueError(f"{path / INDEX} is damaged or was edited: {problem}. {_remedy(path)}")
    return index


def fingerprint(sha256s: Iterable[str]) -> str:
    """The corpus's name: a digest over its shards' digests, in order."""
    return hashlib.sha256("\n".join(sha256s).encode()).hexdigest()[:32]


def _problem(path: Path, index: dict[str, Any]) -> str | None:
    """What is wrong with an index, or None. Cheap: it looks at sizes, never into the shards."""
    if index["format"] != FORMAT:
        return f"it has format {index['format']!r} and this version reads {FORMAT}"
    shards = index["shards"]
    if not sum(shard["sentences"] for shard in shards):
        return "it holds no sentence"
    if index["fingerprint"] != fingerprint(shard["sha256"] for shard in shards):
        return "its fingerprint is not that of its shards' digests"
    for shard in shards:
        blocks = _blocks(shard)
        if sum(b.sentences for b in blocks) != shard["sentences"] or min(b.sentences for b in blocks) < 1:
            return f"the sentences of {shard['name']} do not add up"
        ends = [0, *accumulate(b.length for b in blocks)]
        if [b.offset for b in blocks] != ends[:-1] or ends[-1] != shard["bytes"]:
            return f"the blocks of {shard['name']} do not fill its {shard['bytes']} bytes"
        file = path / shard["name"]
        if not file.is_file() or file.stat().st_size != shard["bytes"]:
            found = f"{file.stat().st_size} bytes" if file.is_file() else "no such file"
            return f"{shard['name']} should have {shard['bytes']} bytes, found {found}"
    return None


def _blocks(shard: dict[str, Any]) -> list[Block]:
    columns = shard["blocks"]
    rows = zip(columns["offset"], columns["length"], columns["xxh3"], columns["sentences"], strict=True)
    return [Block(shard["name"], *row) for row in rows]


def _remedy(path: Path) -> str:
    return f"Copy the corpus again, or delete {path} and write `unsee prepare INPUT --out {path}`."
