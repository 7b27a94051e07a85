"""Tokens: the blocks of a corpus tokenised once, for one tokenizer and one length.

    DIR/tokens-<digest>-<length>/index.json           digests, length, the corpus's fingerprint, blocks by shard
    DIR/tokens-<digest>-<length>/blocks.npy           the blocks, where there are more than 4,096 (block_file.py)
    DIR/tokens-<digest>-<length>/shard-000000.tokens  a block: n lengths (uint16), then the ids of all n sentences

The digest covers everything that decides the ids of a sentence. A corpus may have tokens for several tokenizers;
`Stream` uses those that match and tokenises text when there are none, so a run needs no setting for it.

Nothing in the index is believed that the corpus's own index says, too: how many sentences a block has. The index has a
digest of its own, and every block a checksum, a number of bytes and lengths that must agree.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import xxhash
from pydantic import ConfigDict, TypeAdapter

from unsee_dist.data.corpus.block_file import FiledRows
from unsee_dist.data.corpus.blocks import STRICT, BlockColumns, BlockRows, Blocks, Count, Layout
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
from unsee_dist.data.corpus.index import BYTES, INDEX, FileName, damaged_index, parse_index
from unsee_dist.data.corpus.ragged import Ragged
from unsee_dist.data.corpus.store import Store
from unsee_dist.errors import UserError, file_error
from unsee_dist.files.trees import is_sealed, sealed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True)
class TokenShard:
    """The tokens of a shard in the index. tokens: of all its sentences; cut: sentences that were too long."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: FileName
    tokens: Count
    cut: Count
    blocks: BlockColumns | BlockRows


@dataclass(frozen=True)
class TokensIndex:
    """The whole of index.json. fingerprint: the corpus's; tokenizer: its digest; dtype: of a token id."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    format: int
    fingerprint: str
    tokenizer: str
    max_tokens: int
    dtype: Literal["<u2", "<u4"]
    shards: list[TokenShard]
    digest: str = ""

    def to_json(self) -> bytes:
        """With the format of the entries and the digest of the rest."""
        tree = as_tree(self) | {"format": format_of(self.shards)}
        return json.dumps(sealed(tree), indent=1).encode()


TOKENS_INDEX = TypeAdapter(TokensIndex)
FOLDERS = "tokens-*"


class Tokens:
    """Token ids by block, verified. Use `find_tokens`."""

    def __init__(self, store: Store, index: TokensIndex, blocks: Blocks) -> None:
        self.store, self.index, self.blocks = store, index, blocks
        self._dtype, self._max_tokens = np.dtype(index.dtype), index.max_tokens

    def __getstate__(self) -> dict[str, object]:
        """For a worker, which reads blocks: without the index."""
        return {name: value for name, value in vars(self).items() if name != "index"}

    def read(self, block: int) -> Ragged:
        """The token ids of a block's sentences. UserError: not the bytes that were written, or not these sentences."""
        expected = self.blocks[block]
        path = self.store.path_of(expected.shard)
        where = f"{path} is damaged in block {block} at offset {expected.offset}: expected {expected.length} bytes"
        try:
            raw = self.store.read(expected.shard, expected.offset, expected.length)
        except OSError as error:
            # the tokens may be undamaged: no advice to delete them
            if (explained := self.store.explained(error, expected.shard)) is not None:
                raise explained from error
            raise UserError(f"{where}, but it cannot be read ({error}). {_remedy(self.store)}") from error
        actual = xxhash.xxh3_64_hexdigest(raw)
        if actual != expected.xxh3:
            difference = f"found {len(raw)} with xxh3 {actual}"
            raise UserError(f"{where} with xxh3 {expected.xxh3}, {difference}. {_remedy(self.store)}")
        lengths = np.frombuffer(raw, dtype="<u2", count=expected.sentences).astype(np.int64)
        ids = np.frombuffer(raw, dtype=self._dtype, offset=2 * expected.sentences)
        if lengths.sum() != len(ids) or lengths.max() > self._max_tokens:
            raise UserError(
                f"{where} of {expected.sentences} sentences, found other lengths. {_remedy(self.store)}"
            )
        return Ragged(ids, lengths)


class Window:
    """The last blocks that were read, each in a row of one array, so that a step indexes all its sentences at once.

    Sentence by sentence would cost more than the rest of the step. blocks: how many are kept.
    """

    def __init__(self, read: Callable[[int], Ragged], blocks: int) -> None:
        self._read, self._limit = read, blocks
        self._rows: dict[int, int] = {}  # of each block
        self._blocks: list[int] = []  # of each row
        self._used = np.empty(0, dtype=np.int64)  # the call of `take` that used each row last
        self._calls = 0
        self._ids = np.empty((0, 0), dtype=np.uint16)
        self._starts = np.empty(
            (0, 1), dtype=np.int32
        )  # of each sentence in its row, and the end of the last

    def take(self, blocks: np.ndarray, lines: np.ndarray) -> Ragged:
        """The token ids of these sentences, in this order."""
        self._calls += 1
        rows = self._find(blocks)
        if (rows < 0).any():
            self._used[rows[rows >= 0]] = self._calls
            needed = np.unique(blocks)
            for block in needed.tolist():
                if block not in self._rows:
                    self._put(block, self._read(block), max(self._limit, len(needed)))
            rows = self._find(blocks)
        self._used[rows] = self._calls
        places = rows * self._starts.shape[1] + lines
        starts = self._starts.ravel().take(places).astype(np.int64)
        lengths = self._starts.ravel().take(places + 1) - starts
        total = int(lengths.sum())
        # of each token: its place in the rows, less its place in what is returned
        shifts = rows * self._ids.shape[1] + starts - (np.cumsum(lengths) - lengths)
        return Ragged(self._ids.ravel().take(np.repeat(shifts, lengths) + np.arange(total)), lengths)

    def _find(self, blocks: np.ndarray) -> np.ndarray:
        """The row of each block, -1 for one that is not here."""
        return np.fromiter(map(self._rows.get, blocks.tolist(), repeat(-1)), np.int64, len(blocks))

    def _put(self, block: int, tokens: Ragged, limit: int) -> None:
        """Into a new row, or into the one that has not been used for longest."""
        row = len(self._blocks)
        if row < limit:
            self._blocks.append(block)
        else:
            row = int(self._used[: len(self._blocks)].argmin())
            del self._rows[self._blocks[row]]
            self._blocks[row] = block
        self._rows[block] = row
        rows, width = self._ids.shape
        if row >= rows:
            rows = min(limit, 2 * rows + 1)
            self._used = np.append(self._used, np.zeros(rows - len(self._used), dtype=np.int64))
        if len(tokens.ids) > width:
            width = len(tokens.ids) * 17 // 16
        lines = max(self._starts.shape[1], len(tokens.lengths) + 1)
        self._ids = _enlarged(self._ids, (rows, width), tokens.ids.dtype)
        self._starts = _enlarged(self._starts, (rows, lines), self._starts.dtype)
        self._ids[row, : len(tokens.ids)] = tokens.ids
        self._starts[row, 0] = 0
        self._starts[row, 1 : len(tokens.lengths) + 1] = np.cumsum(tokens.lengths)
        self._used[row] = self._calls


def _enlarged(array: np.ndarray, shape: tuple[int, int], dtype: np.dtype[Any]) -> np.ndarray:
    """The array itself, or a copy with more room."""
    dtype = np.promote_types(array.dtype, dtype)
    if (array.shape, array.dtype) == (shape, dtype):
        return array
    larger = np.empty(shape, dtype=dtype)
    larger[: array.shape[0], : array.shape[1]] = array
    return larger


def digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """A digest of what decides the ids of a sentence: the whole fast tokenizer but its length limit."""
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    description |= {"truncation": None, "padding": None, "side": tokenizer.truncation_side}
    return xxhash.xxh3_128_hexdigest(json.dumps(description, sort_keys=True).encode())


def _remedy(store: Store) -> str:
    return f"Delete {store.path}: the text is then tokenised while it is read."


def folder_of(tokenizer_digest: str, max_tokens: int) -> str:
    """The name of the folder for a tokenizer and a length."""
    return f"tokens-{tokenizer_digest[:16]}-{max_tokens}"


def find_tokens(
    corpus: Store, fingerprint: str, text: Blocks, wanted: tuple[str, int], check: bool = True
) -> Tokens | None:
    """The tokens of a corpus, of its fingerprint and blocks, or None. wanted: the tokenizer's digest, and the length.
    UserError: they are damaged, or another corpus's."""
    tokenizer_digest, max_tokens = wanted
    store = Store(corpus.path_of(folder_of(tokenizer_digest, max_tokens)), corpus.cache)
    try:
        tokens = open_tokens(store, fingerprint, text, check)
    except (FileNotFoundError, PermissionError):  # stores raise either for a missing file
        return None
    expected = {"tokenizer": tokenizer_digest, "max_tokens": max_tokens}
    for key, value in expected.items():
        actual = getattr(tokens.index, key)
        if actual != value:
            raise UserError(_other(store, key, actual, value))
    return tokens


def open_tokens(store: Store, fingerprint: str, text: Blocks, check: bool = True) -> Tokens:
    """The tokens in a folder of a corpus, of its fingerprint and blocks. check: False where another process has looked at
    all rows of blocks.npy. FileNotFoundError: the folder has no index. UserError: it is not of this corpus."""
    index = read_tokens_index(store)
    if index.fingerprint != fingerprint:
        raise UserError(_other(store, "fingerprint", index.fingerprint, fingerprint))
    if contradiction := _contradiction(index, text):
        raise UserError(_damaged(store, contradiction))
    width, sentences = np.dtype(index.dtype).itemsize, text.layout.sentences.tolist()
    sizes = [_bytes(shard, n, width) for shard, n in zip(index.shards, sentences, strict=True)]
    names, numbers = [shard.name for shard in index.shards], np.diff(text.layout.first).tolist()
    layout = Layout(names, sizes, sentences, numbers)
    rows = rows_of(store, layout, index.shards, _remedy(store), text.sizes)
    if check and isinstance(rows, FiledRows):
        rows.verify()
    return Tokens(store, index, Blocks(layout, rows))


def _bytes(shard: TokenShard, sentences: int, width: int) -> int:
    """Of the file: a length for each sentence, then all ids of so many bytes."""
    return 2 * sentences + width * shard.tokens


def read_tokens_index(store: Store) -> TokensIndex:
    """The index of a folder of tokens. FileNotFoundError: there is none. UserError: it is damaged, or was edited."""
    try:
        raw = store.read(INDEX, length=BYTES + 1)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise file_error(f"{store.path_of(INDEX)} cannot be read ({error}).", error) from error
    index = parse_index(raw, TOKENS_INDEX, store, _remedy(store))
    if index.format not in (LISTED, APART):  # 1 had no digest
        raise UserError(_other(store, "format", index.format, LISTED))
    if why := wrong_kind(index, index.format):
        raise UserError(_damaged(store, why))
    if not is_sealed(as_tree(index)):
        raise UserError(_damaged(store, "its values are not those that were written"))
    return index


def _contradiction(index: TokensIndex, text: Blocks) -> str | None:
    """What the index says otherwise than the corpus's or itself, or None."""
    names = text.layout.names
    if len(index.shards) != len(names):
        return f"it has {len(index.shards)} shards, the corpus {len(names)}"
    width = np.dtype(index.dtype).itemsize
    for number, (shard, name) in enumerate(zip(index.shards, names, strict=True)):
        columns, blocks = shard.blocks, text.of_shard(number)
        if number_of(shard) != len(blocks):
            return f"{shard.name} has another number of blocks than {name}"
        if isinstance(columns, BlockRows):
            continue
        if columns.sentences != text.sizes.between(blocks.start, blocks.stop).tolist():
            return f"the blocks of {shard.name} have other numbers of sentences than those of {name}"
        if why := gaps(shard.name, columns, _bytes(shard, int(text.layout.sentences[number]), width)):
            return why
    return None


def _damaged(store: Store, why: str) -> str:
    return damaged_index(store, why, _remedy(store))


def _other(store: Store, key: str, actual: object, needed: object) -> str:
    return f"{store.path_of(INDEX)} has {key} = {actual}, and this run needs {needed}. {_remedy(store)}"
