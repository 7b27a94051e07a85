"""Entries: what the indexes of a corpus and of its tokens have in common, an entry for each file of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import accumulate
from typing import Protocol

from unsee_dist.data.corpus.block_file import FiledRows
from unsee_dist.data.corpus.blocks import AnyEntry, BlockColumns, BlockRows, Layout, ListedRows, Rows
from unsee_dist.data.corpus.sizes import BlockSizes
from unsee_dist.data.corpus.store import Store
from unsee_dist.files import trees

LISTED = 2  # the format of an index whose entries list their blocks
APART = 3  # of one whose blocks are in a file of their own; everything else is the same


class Index(Protocol):
    """The index of a corpus or of its tokens."""

    @property
    def shards(self) -> Sequence[AnyEntry]: ...


def as_tree(index: Index) -> trees.Tree:
    """For JSON. Not `asdict`, which copies every number: seconds for a million blocks."""
    return vars(index) | {"shards": [_values(shard) for shard in index.shards]}


def _values(entry: AnyEntry) -> trees.Tree:
    blocks = entry.blocks
    listed = {"number": blocks.number, "xxh3": blocks.xxh3} if isinstance(blocks, BlockRows) else vars(blocks)
    return {each.name: getattr(entry, each.name) for each in fields(entry)} | {"blocks": listed}


def number_of(shard: AnyEntry) -> int:
    """How many blocks an entry has."""
    return shard.blocks.number if isinstance(shard.blocks, BlockRows) else len(shard.blocks.offset)


def rows_of(
    store: Store, layout: Layout, shards: Sequence[AnyEntry], remedy: str, sizes: BlockSizes | None = None
) -> Rows:
    """The rows of an index, wherever it has them; see FiledRows."""
    listed = [shard.blocks for shard in shards if isinstance(shard.blocks, BlockColumns)]
    if listed:
        return ListedRows(listed)
    filed = [shard.blocks for shard in shards if isinstance(shard.blocks, BlockRows)]
    return FiledRows(store, layout, filed, remedy, sizes)


def format_of(shards: Sequence[AnyEntry]) -> int:
    """The format of an index with these entries."""
    return APART if any(isinstance(shard.blocks, BlockRows) for shard in shards) else LISTED


def wrong_kind(index: Index, number: int) -> str | None:
    """How the entries contradict the format of their index, or None."""
    if all(isinstance(shard.blocks, BlockRows) == (number == APART) for shard in index.shards):
        return None
    return f"its blocks are not those of format {number}"


def gaps(name: str, columns: BlockColumns, size: int) -> str | None:
    """How the columns of a file's blocks contradict its size, or None: the blocks lie end to end in it."""
    if len({len(column) for column in vars(columns).values()}) != 1 or not columns.xxh3:
        return f"the blocks of {name} have columns of different lengths"
    ends = list(accumulate(columns.length))
    if [0, *ends[:-1]] != columns.offset or ends[-1] != size:
        return f"the blocks of {name} do not fill its {size} bytes"
    return None
