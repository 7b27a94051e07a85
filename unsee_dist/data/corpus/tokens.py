"""Tokens: the blocks of a corpus tokenised once, for one tokenizer and one length.

    DIR/tokens-<digest>-<length>/index.json           digest, length, the corpus's fingerprint, blocks by shard
    DIR/tokens-<digest>-<length>/shard-000000.tokens  a block: n lengths (uint16), then the ids of all n sentences

The digest covers everything that decides the ids of a sentence. A corpus may have tokens for several tokenizers;
`Stream` uses those that match and tokenises text when there are none, so a run needs no setting for it.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import xxhash
from pydantic import ConfigDict, TypeAdapter, ValidationError

from unsee_dist.data.corpus.index import INDEX, STRICT, BlockColumns
from unsee_dist.data.corpus.ragged import Ragged
from unsee_dist.data.corpus.store import Store
from unsee_dist.errors import TransientError, UserError, file_error, is_transient

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FORMAT = 1


@dataclass(frozen=True)
class TokenShard:
    """The tokens of a shard in the index. tokens: of all its sentences; cut: sentences that were too long."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: str
    tokens: int
    cut: int
    blocks: BlockColumns


TOKEN_SHARD = TypeAdapter(TokenShard)


@dataclass(frozen=True)
class TokensIndex:
    """The whole of index.json. fingerprint: the corpus's; tokenizer: its digest; dtype: of a token id."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    format: int
    fingerprint: str
    tokenizer: str
    max_tokens: int
    dtype: str
    shards: list[TokenShard]


TOKENS_INDEX = TypeAdapter(TokensIndex)


class Tokens:
    """Token ids by block, verified. Use `find_tokens`."""

    def __init__(self, store: Store, index: TokensIndex) -> None:
        self._store, self._dtype = store, np.dtype(index.dtype)
        self._blocks = [
            (shard.name, *columns)
            for shard in index.shards
            for columns in zip(
                shard.blocks.offset,
                shard.blocks.length,
                shard.blocks.xxh3,
                shard.blocks.sentences,
                strict=True,
            )
        ]

    def read(self, block: int) -> Ragged:
        """The token ids of a block's sentences."""
        name, offset, length, checksum, n = self._blocks[block]
        where = f"{self._store.path_of(name)} is damaged in block {block} at offset {offset}: expected {length} bytes"
        remedy = _remedy(self._store)
        try:
            raw = self._store.read(name, offset, length)
        except OSError as error:
            if is_transient(error):  # the tokens may be undamaged: no advice to delete them
                raise TransientError(f"{self._store.path_of(name)} cannot be read now ({error}).") from error
            raise UserError(f"{where}, but it cannot be read ({error}). {remedy}") from error
        actual = xxhash.xxh3_64_hexdigest(raw)
        if actual != checksum:
            raise UserError(f"{where} with xxh3 {checksum}, found {len(raw)} with xxh3 {actual}. {remedy}")
        lengths = np.frombuffer(raw, dtype="<u2", count=n).astype(np.int64)
        return Ragged(np.frombuffer(raw, dtype=self._dtype, offset=2 * n), lengths)


class Window:
    """The last blocks that were read, end to end in one array, so that a step indexes all its sentences at once.

    Sentence by sentence would cost more than the rest of the step.
    """

    def __init__(self, read: Callable[[int], Ragged], blocks: int) -> None:
        self._read, self._limit = read, blocks
        self._blocks: OrderedDict[int, Ragged] = OrderedDict()
        self._first: dict[int, int] = {}  # number of a block's first sentence in the arrays
        self._ids, self._lengths, self._starts = np.empty(0), np.empty(0), np.empty(0)

    def take(self, blocks: np.ndarray, lines: np.ndarray) -> Ragged:
        """The token ids of these sentences, in this order."""
        needed, which = np.unique(blocks, return_inverse=True)
        missing = [block for block in needed.tolist() if block not in self._blocks]
        for block in needed.tolist():
            if block in self._blocks:
                self._blocks.move_to_end(block)
            else:
                self._blocks[block] = self._read(block)
        if missing:
            while len(self._blocks) > max(self._limit, len(needed)):
                self._blocks.popitem(last=False)
            self._join()
        sentences = np.array([self._first[block] for block in needed.tolist()])[which] + lines
        lengths = self._lengths[sentences]
        total = int(lengths.sum())
        inside = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return Ragged(self._ids[np.repeat(self._starts[sentences], lengths) + inside], lengths)

    def _join(self) -> None:
        parts = self._blocks.values()
        self._ids = np.concatenate([part.ids for part in parts])
        self._lengths = np.concatenate([part.lengths for part in parts])
        self._starts = np.cumsum(self._lengths) - self._lengths
        firsts = accumulate([0, *(len(part.lengths) for part in parts)])
        self._first = dict(zip(self._blocks, firsts, strict=False))


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
    corpus: Store, fingerprint: str, tokenizer: PreTrainedTokenizerFast, max_tokens: int
) -> Tokens | None:
    """The tokens of a corpus for this tokenizer and length, or None. ValueError when they belong to another corpus."""
    tokenizer_digest = digest(tokenizer)
    store = Store(corpus.path_of(folder_of(tokenizer_digest, max_tokens)))
    try:
        raw = store.read(INDEX)
    except (FileNotFoundError, PermissionError):  # stores raise either for a missing file
        return None
    except OSError as error:
        raise file_error(f"{store.path_of(INDEX)} cannot be read ({error}).", error) from error
    try:
        index = TOKENS_INDEX.validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or INDEX
        raise UserError(
            f"{store.path_of(INDEX)} cannot be read as an index ({place}: {first['msg']}). {_remedy(store)}"
        ) from error
    expected = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "tokenizer": tokenizer_digest,
        "max_tokens": max_tokens,
    }
    for key, value in expected.items():
        actual = getattr(index, key)
        if actual != value:
            raise UserError(
                f"{store.path_of(INDEX)} has {key} = {actual}, and this run needs {value}. {_remedy(store)}"
            )
    return Tokens(store, index)
