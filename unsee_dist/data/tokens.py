"""Tokens: the blocks of a corpus tokenised once, for one tokenizer and one length, and for no other.

    DIR/tokens-<digest>-<length>/index.json           digest, length, the corpus's fingerprint, blocks by shard
    DIR/tokens-<digest>-<length>/shard-000000.tokens  a block: n lengths (uint16), then the ids of all n sentences

The digest is of everything that decides what a sentence's ids are. A corpus may have tokens for several tokenizers;
`Stream` takes those that fit and tokenises text when there are none, so no run has to ask for them.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xxhash

from unsee_dist.data.index import INDEX
from unsee_dist.data.store import Store

FORMAT = 1
COLUMNS = ("offset", "length", "xxh3", "sentences")


class Tokens:
    """Token ids by block, verified. Use `find`."""

    def __init__(self, store: Store, index: dict[str, Any]) -> None:
        self._store, self._dtype = store, np.dtype(index["dtype"])
        self._blocks = [
            (shard["name"], *columns)
            for shard in index["shards"]
            for columns in zip(*(shard["blocks"][key] for key in COLUMNS), strict=True)
        ]

    def read(self, block: int) -> tuple[np.ndarray, list[int]]:
        """(ids, bounds): the ids of a block's sentences end to end; sentence i has those from bounds[i] to bounds[i+1].

        bounds is a list: taking single numbers out of an array costs more than the rest.
        """
        name, offset, length, checksum, n = self._blocks[block]
        where = f"{self._store.where(name)} is damaged in block {block} at offset {offset}: expected {length} bytes"
        remedy = f"Delete {self._store.path}: the text is tokenised then."
        try:
            raw = self._store.read(name, offset, length)
        except OSError as error:
            raise ValueError(f"{where}, found that it cannot be read ({error}). {remedy}") from error
        found = xxhash.xxh3_64_hexdigest(raw)
        if found != checksum:
            raise ValueError(f"{where} with xxh3 {checksum}, found {len(raw)} with xxh3 {found}. {remedy}")
        lengths = np.frombuffer(raw, dtype="<u2", count=n)
        return np.frombuffer(raw, dtype=self._dtype, offset=2 * n), [
            0,
            *np.cumsum(lengths, dtype=np.int64).tolist(),
        ]


def digest(tokenizer: Any) -> str:
    """What decides a sentence's ids: the fast tokenizer's whole description, less how long it may be."""
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    description |= {"truncation": None, "padding": None, "side": tokenizer.truncation_side}
    return xxhash.xxh3_128_hexdigest(json.dumps(description, sort_keys=True).encode())


def folder_of(tokenizer_digest: str, max_tokens: int) -> str:
    """The name of the folder for a tokenizer and a length."""
    return f"tokens-{tokenizer_digest[:16]}-{max_tokens}"


def find(corpus: Store, fingerprint: str, tokenizer: Any, max_tokens: int) -> Tokens | None:
    """The tokens of a corpus for this tokenizer and length, or None. ValueError when they are another corpus's."""
    ours = digest(tokenizer)
    store = Store(corpus.where(folder_of(ours, max_tokens)))
    try:
        index = json.loads(store.read(INDEX))
    except FileNotFoundError:
        return None
    wanted = {"format": FORMAT, "fingerprint": fingerprint, "tokenizer": ours, "max_tokens": max_tokens}
    for key, value in wanted.items():
        if index.get(key) != value:
            raise ValueError(
                f"{store.where(INDEX)} has {key} = {index.get(key)}, and {value} is needed. "
                f"Delete {store.path}: the text is tokenised then."
            )
    return Tokens(store, index)
