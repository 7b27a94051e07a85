"""Index: the shards of a corpus with their sizes and checksums, and the checks of the index itself.

    fingerprint             digest over the shards' digests: identifies the corpus
    shards[i]               name, bytes, sha256, sentences, and its blocks as columns
    shards[i].blocks        offset, length, xxh3, sentences

A block's bytes are its tar header, its payload and its padding, the last block's also the end of the archive: the
blocks of a shard fill it, so no byte is outside some checksum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from unsee_dist.data.corpus.store import Store
from unsee_dist.errors import UserError, file_error

INDEX = "index.json"
FORMAT = 1
STRICT = ConfigDict(strict=True)


class Block(NamedTuple):
    """Position, size and checksum of a block."""

    shard: str
    offset: int  # bytes from the start of the shard
    length: int  # bytes
    xxh3: str  # hex of the 64-bit checksum
    sentences: int


@dataclass(frozen=True)
class BlockColumns:
    """The blocks of a shard, as columns of equal length."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    offset: list[int]
    length: list[int]
    xxh3: list[str]
    sentences: list[int]


@dataclass(frozen=True)
class ShardEntry:
    """A shard of a corpus in its index."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: str
    bytes: int
    sha256: str
    sentences: int
    blocks: BlockColumns


SHARD_ENTRY = TypeAdapter(ShardEntry)


@dataclass(frozen=True, kw_only=True)
class CorpusIndex:
    """The whole of index.json. dev: held-out pairs; preparation: the plan and the counts of `unsee prepare`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    format: int
    fingerprint: str
    sentences: int
    dev: int = 0
    preparation: dict[str, object] | None = None
    shards: list[ShardEntry]


CORPUS_INDEX = TypeAdapter(CorpusIndex)


class Blocks:
    """All blocks of a corpus, as columns: 50 bytes each, where a list of objects takes 400."""

    def __init__(self, shards: list[ShardEntry]) -> None:
        columns = [shard.blocks for shard in shards]
        self.names = [shard.name for shard in shards]
        self.shard = np.repeat(np.arange(len(shards)), [len(each.offset) for each in columns])
        self.offset = np.concatenate([np.array(each.offset, dtype=np.int64) for each in columns])
        self.length = np.concatenate([np.array(each.length, dtype=np.int64) for each in columns])
        self.sentences = np.concatenate([np.array(each.sentences, dtype=np.int64) for each in columns])
        self.xxh3 = np.concatenate([np.array(each.xxh3, dtype="S16") for each in columns])

    def __len__(self) -> int:
        return len(self.offset)

    def __iter__(self) -> Iterator[Block]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, block: int) -> Block:
        name, checksum = self.names[self.shard[block]], self.xxh3[block].decode()
        return Block(
            name, int(self.offset[block]), int(self.length[block]), checksum, int(self.sentences[block])
        )


def read_index(store: Store, sizes: bool = True) -> CorpusIndex:
    """The corpus's index, checked against itself and, unless sizes is False, against the shards' sizes on disk."""
    path = store.path
    if not store.exists():
        raise UserError(
            f"data.shards = {path} does not exist; write `unsee prepare INPUT --out {path}` first."
        )
    try:
        raw = store.read(INDEX)
    except FileNotFoundError as error:
        raise UserError(
            f"data.shards = {path} has no {INDEX}, so it is not a prepared corpus, or its preparation was interrupted; "
            f"write `unsee prepare INPUT --out {path}` first."
        ) from error
    except OSError as error:
        raise file_error(f"data.shards = {path} cannot be read ({error}).", error) from error
    try:
        index = CORPUS_INDEX.validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or INDEX
        raise UserError(
            _damaged_index(store, f"it cannot be read as an index ({place}: {first['msg']})")
        ) from error
    if contradiction := _contradiction(index):
        raise UserError(_damaged_index(store, contradiction))
    if sizes and (damage := _wrong_size(store, index)):
        raise UserError(f"{damage}. {remedy(path)}")
    return index


def fingerprint(sha256s: Iterable[str]) -> str:
    """A digest over the shards' digests, in order: identifies the corpus."""
    return hashlib.sha256("\n".join(sha256s).encode()).hexdigest()[:32]


def remedy(path: str) -> str:
    """The advice for a damaged corpus, which ends an error message."""
    return f"Copy the corpus again, or delete {path} and write `unsee prepare INPUT --out {path}`."


def _damaged_index(store: Store, why: str) -> str:
    return f"{store.path_of(INDEX)} is damaged or was edited: {why}. {remedy(store.path)}"


def _contradiction(index: CorpusIndex) -> str | None:
    """How the index contradicts itself, or None."""
    if index.format != FORMAT:
        return f"it has format {index.format!r} and this version reads {FORMAT}"
    if not sum(shard.sentences for shard in index.shards):
        return "it has no sentence"
    if index.fingerprint != fingerprint(shard.sha256 for shard in index.shards):
        return "its fingerprint is not that of its shards' digests"
    for shard in index.shards:
        columns = shard.blocks
        if len({len(column) for column in vars(columns).values()}) != 1 or not columns.xxh3:
            return f"the blocks of {shard.name} have columns of different lengths"
        sentences = np.array(columns.sentences, dtype=np.int64)
        if sentences.sum() != shard.sentences or sentences.min() < 1:
            return f"the sentences of {shard.name} do not add up"
        ends = np.cumsum(np.array(columns.length, dtype=np.int64))
        if [0, *ends[:-1].tolist()] != columns.offset or int(ends[-1]) != shard.bytes:
            return f"the blocks of {shard.name} do not fill its {shard.bytes} bytes"
    return None


def _wrong_size(store: Store, index: CorpusIndex) -> str | None:
    """The first shard that is missing or has another size, and its first damaged block. Reads no shard."""
    sizes = store.sizes([shard.name for shard in index.shards])
    first_block = 0
    for shard in index.shards:
        size, offsets = sizes[shard.name], shard.blocks.offset
        if size != shard.bytes:
            actual = "no such file" if size is None else f"{size} bytes"
            ends = [*offsets[1:], shard.bytes]
            complete = sum(end <= (size or 0) for end in ends)
            damaged = min(
                complete, len(ends) - 1
            )  # of a longer file the last block: it no longer ends the archive
            return (
                f"{store.path_of(shard.name)} is damaged in block {first_block + damaged} at offset "
                f"{offsets[damaged]}: the shard should have {shard.bytes} bytes, found {actual}"
            )
        first_block += len(offsets)
    return None
