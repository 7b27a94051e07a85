"""Index: the shards of a corpus with their sizes and checksums, and the checks of the index itself.

    fingerprint             digest over the shards' digests: identifies the corpus
    shards[i]               name, bytes, sha256, sentences, and its blocks as columns
    shards[i].blocks        offset, length, xxh3, sentences; of more than 4,096 blocks only number and xxh3 of their
                            rows in another file (block_file.py)
    digest                  of all of the above, so that a flipped bit in a count is found

A block's bytes are its tar header, its payload and its padding, the last block's also the end of the archive: the
blocks of a shard fill it, so no byte is outside some checksum.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from unsee_dist.config.prepare import BLOCK_SENTENCES
from unsee_dist.data.corpus.block_file import FiledRows
from unsee_dist.data.corpus.blocks import STRICT, BlockColumns, BlockRows, Blocks, Count, Layout, Offset
from unsee_dist.data.corpus.entries import (
    APART,
    LISTED,
    as_tree,
    format_of,
    gaps,
    number_of,
    rows_of,
    wrong_kind,
)
from unsee_dist.data.corpus.store import Store, Unreachable
from unsee_dist.errors import UserError, file_error
from unsee_dist.files import trees
from unsee_dist.files.owner import OWNER, Owner, owner_of
from unsee_dist.files.remote import is_remote

INDEX = "index.json"
SIZES = "sizes.json"  # samples (blocks) of each shard, as other tools expect it
PREPARING = "preparing"  # the folder for unfinished work, inside that of the corpus
UNSEALED = 1  # had no digest; everything else is as in LISTED
BLOCK_BYTES = 1 << 30  # of the text of a block, at most
BYTES = 1 << 30  # of the largest index
FileName = Annotated[str, Field(pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]  # of this folder, and of no other


Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """A shard of a corpus in its index."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: FileName
    bytes: Offset
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    sentences: Count
    blocks: BlockColumns | BlockRows


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
    """The index with its digest, and the format of its entries."""
    index = replace(index, format=format_of(index.shards))
    return replace(index, digest=trees.digest(as_tree(index)))


def blocks_of(store: Store, shards: Sequence[ShardEntry]) -> Blocks:
    """The blocks of a corpus. UserError: their file is missing, or is not this index's."""
    layout = Layout(
        [shard.name for shard in shards],
        [shard.bytes for shard in shards],
        [shard.sentences for shard in shards],
        [number_of(shard) for shard in shards],
    )
    return Blocks(layout, rows_of(store, layout, shards, remedy(store.path)))


def read_index(
    store: Store, sizes: bool = True, rows: bool = True, setting: str = "data.shards"
) -> CorpusIndex:
    """The corpus's index, checked against itself; unless sizes is False, against the shards' sizes on disk; unless rows is
    False, against all rows of its blocks that are in a file. setting: what named the folder, for messages."""
    path = store.path
    if not store.remote and (owner := _preparing(Path(path))):
        raise UserError(
            f"{setting} = {path} is being prepared by {owner}, and is no corpus yet. Wait until that has ended."
        )
    raw = _index_bytes(store, setting)
    index = parse_index(raw, CORPUS_INDEX, store, remedy(path))
    if isinstance(index.format, int) and index.format > APART:
        raise UserError(
            f"{store.path_of(INDEX)} has format {index.format}, and this version of unsee_dist reads up to {APART}: a newer one has written "
            f"it. Update unsee_dist, or prepare the corpus again into another folder."
        )
    if contradiction := _contradiction(index):
        raise UserError(damaged_index(store, contradiction, remedy(path)))
    if sizes and (damage := _wrong_size(store, index)):
        raise UserError(f"{damage}. {remedy(path)}")
    if rows and isinstance(filed := blocks_of(store, index.shards).rows, FiledRows):
        filed.verify()
    return index


def _index_bytes(store: Store, setting: str) -> bytes:
    """The first BYTES + 1 of the index. UserError: there is none, or it must not be read; TransientError: not now."""
    path = store.path
    try:
        if not store.exists():
            raise UserError(_no_folder(path, setting))
        return store.read(INDEX, length=BYTES + 1)
    except FileNotFoundError as error:
        raise UserError(
            f"{setting} = {path} has no {INDEX}, so it is not a prepared corpus, or its preparation was interrupted; {_made_by(path)}."
        ) from error
    except Unreachable as error:
        raise Unreachable(f"{setting} = {path} does not answer ({error}).") from error
    except OSError as error:
        raise file_error(f"{setting} = {path} cannot be read ({error.strerror or error}).", error) from error


def _no_folder(path: str, setting: str) -> str:
    if os.path.isfile(path):
        return f"{setting} = {path} is a file. Give the folder of a corpus: unsee prepare {path} --out DIR makes one of a text."
    return f"{setting} = {path} does not exist; {_made_by(path)}."


def longest_sentence(index: CorpusIndex) -> int:
    """The most bytes that a sentence can have: what its preparation let pass."""
    settings = (index.preparation or {}).get("settings")
    longest = settings.get("max_bytes") if isinstance(settings, dict) else None
    return longest if isinstance(longest, int) else BLOCK_BYTES


def parse_index(raw: bytes, kind: TypeAdapter[Parsed], store: Store, advice: str) -> Parsed:
    """An index out of the first BYTES + 1 of its file. UserError: it is larger, or no such index."""
    if len(raw) > BYTES:
        raise UserError(damaged_index(store, f"it is larger than {BYTES >> 20} MiB", advice))
    try:
        return kind.validate_json(raw)
    except ValidationError as error:
        why = f"it cannot be read as an index ({_why_not(error)})"
        raise UserError(damaged_index(store, why, advice)) from error


def _why_not(error: ValidationError) -> str:
    """The first thing that is wrong, and its place."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"])) or INDEX
    return f"{place}: {first['msg']}"


def fingerprint(sha256s: Iterable[str]) -> str:
    """A digest over the shards' digests, in order: identifies the corpus."""
    return hashlib.sha256("\n".join(sha256s).encode()).hexdigest()[:32]


def remedy(path: str) -> str:
    """The advice for a damaged corpus, which ends an error message."""
    if is_remote(path):
        return "Copy the corpus there again."
    return (
        f"Copy the corpus again, or delete {path} and write `unsee prepare INPUT --out {shlex.quote(path)}`."
    )


def _made_by(path: str) -> str:
    if is_remote(path):
        return "write `unsee prepare INPUT --out DIR` first, and copy DIR there"
    return f"write `unsee prepare INPUT --out {shlex.quote(path)}` first"


def _preparing(path: Path) -> Owner | None:
    """Whose preparation is at work in a folder that has no index yet; None: nobody's."""
    try:
        owner = None if (path / INDEX).exists() else owner_of(path / PREPARING / OWNER)
    except (UserError, OSError):  # what is wrong there is said by who reads it next
        return None
    return None if owner is None or owner.ended else owner


def damaged_index(store: Store, why: str, advice: str) -> str:
    """The sentence about an index of a corpus or of its tokens."""
    return f"{store.path_of(INDEX)} is damaged or was edited: {why}. {advice}"


def _contradiction(index: CorpusIndex) -> str | None:
    """How the index contradicts itself, or None."""
    if index.format not in (UNSEALED, LISTED, APART):
        return f"it has format {index.format!r} and there are {UNSEALED} to {APART}"
    if why := wrong_kind(index, index.format):
        return why
    sentences = sum(shard.sentences for shard in index.shards)
    if not sentences or sentences != index.sentences:
        return f"it has {index.sentences} sentences, its shards have {sentences}"
    if index.fingerprint != fingerprint(shard.sha256 for shard in index.shards):
        return "its fingerprint is not that of its shards' digests"
    if len({shard.name for shard in index.shards}) < len(index.shards):
        return "two shards have one name"
    if why := next((why for shard in index.shards if (why := _shard_contradiction(shard))), None):
        return why
    if index.digest != (None if index.format == UNSEALED else trees.digest(as_tree(index))):
        return "its values are not those that were written"
    return None


def _shard_contradiction(shard: ShardEntry) -> str | None:
    columns = shard.blocks
    if isinstance(columns, BlockRows):
        if not columns.number <= shard.sentences <= BLOCK_SENTENCES * columns.number:
            return f"{shard.name} cannot have {shard.sentences} sentences in {columns.number} blocks"
        return None
    if sum(columns.sentences) != shard.sentences:
        return f"the sentences of {shard.name} do not add up"
    return gaps(shard.name, columns, shard.bytes)


def _wrong_size(store: Store, index: CorpusIndex) -> str | None:
    """The first shard that is missing or has another size, and its first damaged block. Reads no shard."""
    try:
        sizes = store.sizes([shard.name for shard in index.shards])
    except PermissionError as error:
        raise store.explained(error) or error from error
    first_block = 0
    for number, shard in enumerate(index.shards):
        size = sizes[shard.name]
        if size != shard.bytes:
            actual = "no such file" if size is None else f"{size} bytes"
            offsets = blocks_of(store, index.shards).rows.of(number)["offset"].tolist()
            ends = [*offsets[1:], shard.bytes]
            complete = sum(end <= (size or 0) for end in ends)
            damaged = min(
                complete, len(ends) - 1
            )  # of a longer file the last block: it no longer ends the archive
            return (
                f"{store.path_of(shard.name)} is damaged in block {first_block + damaged} at offset "
                f"{offsets[damaged]}: the shard should have {shard.bytes} bytes, found {actual}"
            )
        first_block += number_of(shard)
    return None
