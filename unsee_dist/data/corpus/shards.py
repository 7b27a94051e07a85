"""Shards: a prepared corpus, read by block, every byte verified.

    DIR/index.json          what the shards must be: written last, so a folder without it is no corpus
    DIR/sizes.json          samples (blocks) of each shard, as other tools expect it
    DIR/shard-000000.tar    plain webdataset tar; a member is a block: 1,024 newline-joined sentences, `.txt`
    DIR/dev.tsv             held-out (query, answer) pairs, when asked for
    DIR/tokens-...          the same sentences tokenised, when asked for (tokens.py)

DIR is a folder or a URL. Stock readers pass over damage without a word; this one stops, or is told to skip and
counts. A sentence's id is its place in shard order (shard by shard, block by block, line by line), from 0.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
import zstandard

from unsee_dist.config.sections import DataSettings, OnDamage
from unsee_dist.data.corpus.index import Blocks, read_index, remedy
from unsee_dist.data.corpus.order import WINDOW_BLOCKS, Order
from unsee_dist.data.corpus.store import BlockCache, Store, Unreachable, default_cache_folder
from unsee_dist.data.corpus.tokens import Tokens
from unsee_dist.data.corpus.tokens import find as find_tokens
from unsee_dist.errors import UserError, file_error

CACHE_GB = DataSettings().cache_gb


class Shards:
    """A corpus written by `unsee prepare`.

        shards = Shards("corpus/")
        shards.sentences, len(shards.blocks), shards.fingerprint
        shards.read(0)          # the sentences of the first block, verified
        shards.sentence(70_000) # one sentence by its id

    path: a folder or a URL. on_damage: "stop", or "skip": `standin` then names the block to read for a damaged one.
    cache_gb: most that is kept on this machine of a remote corpus.
    Raises ValueError, one sentence, when the folder is no corpus, is empty, incomplete or damaged; with "skip"
    only for what the index itself says.
    """

    def __init__(self, path: str | Path, on_damage: OnDamage = "stop", cache_gb: float = CACHE_GB) -> None:
        self.store, self.on_damage = Store(path), on_damage
        self.path = Path(path) if not self.store.remote else path
        self.index = read_index(self.store, sizes=on_damage == "stop")
        self.fingerprint: str = self.index["fingerprint"]
        self.blocks = Blocks(self.index["shards"])
        self.sizes = self.blocks.sentences
        self._ends = np.cumsum(self.sizes)
        self._sound: dict[int, bool] = {}
        self._cache = (
            BlockCache(default_cache_folder(), int(cache_gb * 1e9))
            if self.store.remote and cache_gb
            else None
        )
        self.sentences = int(self._ends[-1])
        self.window_blocks = WINDOW_BLOCKS

    def order(self, seed: int) -> Order:
        """Which sentence stands at which position of training."""
        return Order(self.sizes, seed)

    def tokens(self, tokenizer: Any, max_tokens: int) -> Tokens | None:
        """The blocks' token ids, when they were prepared for this tokenizer and length."""
        return find_tokens(self.store, self.fingerprint, tokenizer, max_tokens)

    def read(self, block: int) -> list[str]:
        """The sentences of a block, after checking its bytes against the index."""
        raw = self._verified(block)
        header = tarfile.TarInfo.frombuf(raw[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
        payload = raw[tarfile.BLOCKSIZE : tarfile.BLOCKSIZE + header.size]
        if header.name.endswith(".zst"):
            payload = zstandard.decompress(payload)
        sentences = payload.decode("utf-8").split("\n")
        if len(sentences) != self.sizes[block]:
            raise UserError(self._damage(block, f"{len(sentences)} sentences"))
        return sentences

    def sound(self, block: int) -> bool:
        """Whether a block can be read; looked up once."""
        if block not in self._sound:
            try:
                self.read(block)
                self._sound[block] = True
            except UserError:
                self._sound[block] = False
        return self._sound[block]

    def standin(self, block: int) -> int:
        """The block to read for this one: itself, or for a damaged one the next sound one, around the end.

        A function of the files alone, so every rank and worker chooses the same. ValueError when none is sound.
        """
        for step in range(len(self.blocks)):
            candidate = (block + step) % len(self.blocks)
            if self.sound(candidate):
                return candidate
        raise UserError(f"no block of {self.path} can be read. {remedy(self.store.path)}")

    def find(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Blocks of sentences, and their lines there."""
        blocks = np.searchsorted(self._ends, ids, side="right")
        return blocks, ids - self._ends[blocks] + self.sizes[blocks]

    def first_id(self, block: int) -> int:
        """Id of the first sentence of a block."""
        return int(self._ends[block] - self.sizes[block])

    def sentence(self, sentence_id: int) -> str:
        """One sentence by its id."""
        if not 0 <= sentence_id < self.sentences:
            raise UserError(f"sentence {sentence_id} does not exist; ids run from 0 to {self.sentences - 1}.")
        (block,), (line,) = self.find(np.array([sentence_id]))
        return self.read(int(block))[line]

    def head(self, n: int) -> list[str]:
        """The first n sentences by id (fewer when the corpus is smaller); without damaged blocks under "skip"."""
        found: list[str] = []
        for block in range(len(self.blocks)):
            if len(found) >= n:
                break
            if self.on_damage == "stop" or self.sound(block):
                found.extend(self.read(block))
        return found[:n]

    def _verified(self, block: int) -> bytes:
        """The bytes of a block: those kept on this machine, or the store's."""
        want, key = self.blocks[block], f"{self.fingerprint}-{block}"
        kept = self._cache.get(key) if self._cache else None
        if kept is not None and xxhash.xxh3_64_hexdigest(kept) == want.xxh3:
            return kept
        try:
            raw = self.store.read(want.shard, want.offset, want.length)
        except Unreachable as error:  # never skipped: the other ranks may well read it
            raise Unreachable(f"{self.store.where(want.shard)} cannot be reached ({error}).") from error
        except OSError as error:
            why = error.strerror or str(error) or type(error).__name__
            raise file_error(self._damage(block, f"that it cannot be read ({why})"), error) from error
        found = xxhash.xxh3_64_hexdigest(raw)
        if len(raw) != want.length or found != want.xxh3:
            raise UserError(self._damage(block, f"{len(raw)} bytes with xxh3 {found}"))
        if self._cache:
            self._cache.put(key, raw)
        return raw

    def _damage(self, block: int, found: str) -> str:
        want = self.blocks[block]
        return (
            f"{self.store.where(want.shard)} is damaged in block {block} at offset {want.offset}: "
            f"expected {want.length} bytes with xxh3 {want.xxh3} and {want.sentences} sentences, found {found}. "
            f"{remedy(self.store.path)}"
        )
