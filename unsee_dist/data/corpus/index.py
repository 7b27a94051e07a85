"""Index: the shards of a corpus with their sizes and checksums, and the checks of the index itself.

    fingerprint             digest over the shards' digests: identifies the corpus
    shards[i]               name, bytes, sha256, sentences, and its blocks as columns
    shards[i].blocks        offset, length, xxh3, sentences
    digest                  of all of the above, so that a flipped bit in a count is found

A block's bytes are its tar header, its payload and its padding, the last block's also the end of the archive: the
blocks of a shard fill it, so no byte is outside some checksum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Annotated, ClassVar, NamedTuple, Protocol

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from unsee_dist.config.prepare import BLOCK_SENTENCES
from unsee_dist.data.corpus.store import Store
from unsee_dist.errors import UserError, file_error
from unsee_dist.files import trees

INDEX = "index.json"
FORMAT = 2
UNSEALED = 1  # had no digest; everything else is the same
STRICT = ConfigDict(strict=True, extra="forbid")
BLOCK_BYTES = 1 << 30  # of the text of a block, at most
BYTES = 1 << 30  # of the largest index: of 18 thousand million sentences
Count = Annotated[int, Field(ge=0, lt=1 << 40)]
Length = Annotated[int, Field(ge=0, lt=1 << 36)]  # all of an index together stay below 2^63
Offset = Annotated[int, Field(ge=0, lt=1 << 62)]
Xxh3 = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
FileName = Annotated[str, Field(pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]  # of this folder, and of no other


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

    offset: list[Offset]
    length: list[Length]
    xxh3: list[Xxh3]
    sentences: list[Annotated[int, Field(ge=1, le=BLOCK_SENTENCES)]]


@dataclass(frozen=True)
class ShardEntry:
    """A shard of a corpus in its index."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: FileName
    bytes: Offset
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    sentences: Count
    blocks: BlockColumns


SHARD_ENTRY = TypeAdapter(ShardEntry)


@dataclass(frozen=True, kw_only=True)
class CorpusIndex:
    """The whole of index.json. dev: held-out pairs; preparation: the plan and the counts of `unsee prepare`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    format: int
    fingerprint: str
    sentences: Count
    dev: Count = 0
    preparation: dict[str, object] | None = None
    shards: list[ShardEntry]
    digest: str | None = None


CORPUS_INDEX = TypeAdapter(CorpusIndex)


def sealed(index: CorpusIndex) -> CorpusIndex:
    """The index with its digest."""
    return replace(index, digest=trees.digest(as_tree(index)))


class ShardBlocks(Protocol):
    """An entry of an index, whose blocks lie in one file."""

    @property
    def name(self) -> str: ...

    @property
    def blocks(self) -> BlockColumns: ...


class Index(Protocol):
    """The index of a corpus or of its tokens."""

    @property
    def shards(self) -> Sequence[ShardBlocks]: ...


def as_tree(index: Index) -> trees.Tree:
    """For JSON. Not `asdict`, which copies every number: seconds for a million blocks."""
    shards = [vars(shard) | {"blocks": vars(shard.blocks)} for shard in index.shards]
    return vars(index) | {"shards": shards}


class Blocks:
    """All blocks of a corpus, as columns: 50 bytes each, where a list of objects takes 400."""

    def __init__(self, shards: Sequence[ShardBlocks]) -> None:
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
        raw = store.read(INDEX, length=BYTES + 1)
    except FileNotFoundError as error:
        raise UserError(
            f"data.shards = {path} has no {INDEX}, so it is not a prepared corpus, or its preparation was interrupted; "
            f"write `unsee prepare INPUT --out {path}` first."
        ) from error
    except OSError as error:
        raise file_error(f"data.shards = {path} cannot be read ({error}).", error) from error
    if len(raw) > BYTES:
        raise UserError(_damaged_index(store, f"it is larger than {BYTES >> 20} MiB"))
    try:
        index = CORPUS_INDEX.validate_json(raw)
    except ValidationError as error:
        raise UserError(_damaged_index(store, f"it cannot be read as an index ({why_not(error)})")) from error
    if contradiction := _contradiction(index):
        raise UserError(_damaged_index(store, contradiction))
    if sizes and (damage := _wrong_size(store, index)):
        raise UserError(f"{damage}. {remedy(path)}")
    return index


def most_bytes(index: CorpusIndex, sentences: int) -> int:
    """The most bytes that the text of a block of so many sentences can have: what its preparation let pass."""
    settings = (index.preparation or {}).get("settings")
    longest = settings.get("max_bytes") if isinstance(settings, dict) else None
    return min(BLOCK_BYTES, sentences * (longest + 1)) if isinstance(longest, int) else BLOCK_BYTES


def why_not(error: ValidationError) -> str:
    """The first thing that is wrong, and its place."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"])) or INDEX
    return f"{place}: {first['msg']}"


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
    if index.format not in (UNSEALED, FORMAT):
        return f"it has format {index.format!r} and this version reads {FORMAT}"
    sentences = sum(shard.sentences for shard in index.shards)
    if not sentences or sentences != index.sentences:
        return f"it has {index.sentences} sentences, its shards have {sentences}"
    if index.fingerprint != fingerprint(shard.sha256 for shard in index.shards):
        return "its fingerprint is not that of its shards' digests"
    if len({shard.name for shard in index.shards}) < len(index.shards):
        return "two shards have one name"
    if why := next((why for shard in index.shards if (why := _shard_contradiction(shard))), None):
        return why
    if index.digest != (trees.digest(as_tree(index)) if index.format == FORMAT else None):
        return "its values are not those that were written"
    return None


def _shard_contradiction(shard: ShardEntry) -> str | None:
    columns = shard.blocks
    if len({len(column) for column in vars(columns).values()}) != 1 or not columns.xxh3:
        return f"the blocks of {shard.name} have columns of different lengths"
    if sum(columns.sentences) != shard.sentences:
        return f"the sentences of {shard.name} do not add up"
    if not fills(columns, shard.bytes):
        return f"the blocks of {shard.name} do not fill its {shard.bytes} bytes"
    return None


def fills(columns: BlockColumns, size: int) -> bool:
    """Whether the blocks lie end to end in a file of so many bytes."""
    ends = list(accumulate(columns.length))
    return [0, *ends[:-1]] == columns.offset and ends[-1:] == [size]


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
