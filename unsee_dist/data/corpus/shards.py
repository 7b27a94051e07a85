"""Shards: a prepared corpus, read by block, every byte verified.

    DIR/index.json          sizes and checksums of the shards: written last, so a folder without it is no corpus
    DIR/blocks.npy          the blocks' sizes and checksums, where there are more than 4,096 (block_file.py)
    DIR/sizes.json          samples (blocks) of each shard, as other tools expect it
    DIR/shard-000000.tar    plain webdataset tar; a member is a block: 1,024 newline-joined sentences, `.txt`
    DIR/dev.tsv             held-out (query, answer) pairs, when asked for
    DIR/tokens-...          the same sentences as token ids, when asked for (tokens.py)

DIR is a folder or a URL. Stock readers skip damage silently; this one stops, or with `on_damage: skip` reads
and counts replacements. A sentence's id is its position in shard order (shard by shard, block by block, line by line), from 0.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash
import zstandard

from unsee_dist.config.sections import DataSettings, OnDamage
from unsee_dist.data.corpus.index import BLOCK_BYTES, blocks_of, longest_sentence, read_index, remedy
from unsee_dist.data.corpus.order import Order
from unsee_dist.data.corpus.store import BlockCache, Refused, Store, default_cache_folder
from unsee_dist.data.corpus.tokens import Tokens, digest, find_tokens
from unsee_dist.errors import UserError
from unsee_dist.files.remote import is_remote

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

DEFAULT = DataSettings()
READABLE, DAMAGED = 1, 2


class Shards:
    """A corpus written by `unsee prepare`.

        shards = Shards("corpus/")
        shards.sentences, len(shards.blocks), shards.fingerprint
        shards.read(0)          # the sentences of the first block, verified
        shards.sentence(70_000) # one sentence by its id

    path: a folder or a URL. on_damage: "stop", or "skip": `replacement_block` then gives the block to read for a damaged
    one. cache_gb: most that is kept on this machine of a remote corpus. check: False where another process has looked at the
    shards' sizes, and at all rows of blocks.npy. setting: what named the folder, for messages.
    Raises UserError when the folder is not a corpus, or is empty, incomplete or damaged; with "skip" only for what the
    index shows.
    """

    def __init__(
        self,
        path: str | Path,
        on_damage: OnDamage = DEFAULT.on_damage,
        cache_gb: float = DEFAULT.cache_gb,
        check: bool = True,
        setting: str = "data.shards",
    ) -> None:
        cached = cache_gb and is_remote(str(path))
        cache = BlockCache(default_cache_folder(), int(cache_gb * 1e9)) if cached else None
        self.store, self.on_damage, self._check = Store(path, cache), on_damage, check
        self.path = Path(path) if not self.store.remote else path
        self.index = read_index(self.store, sizes=check and on_damage == "stop", rows=check, setting=setting)
        self.fingerprint = self.index.fingerprint
        self.blocks = blocks_of(self.store, self.index.shards)
        self.sizes = self.blocks.sizes
        self._longest = longest_sentence(self.index)
        self._tried: bytearray | None = None  # of each block: 0, READABLE or DAMAGED
        self.sentences = self.sizes.sentences

    def __getstate__(self) -> dict[str, object]:
        """For a worker, which reads blocks: without the index, and it tries blocks itself."""
        return {name: value for name, value in vars(self).items() if name != "index"} | {"_tried": None}

    def order(self, seed: int, batch: int) -> Order:
        """The order of the sentences in training, in batches of so many."""
        return Order.of(self.sizes, seed, batch)

    def tokens(self, tokenizer: PreTrainedTokenizerFast, max_tokens: int) -> Tokens | None:
        """The blocks' token ids, when they were prepared for this tokenizer and length."""
        return find_tokens(
            self.store, self.fingerprint, self.blocks, (digest(tokenizer), max_tokens), self._check
        )

    def read(self, block: int) -> list[str]:
        """The sentences of a block, after checking its bytes against the index."""
        raw = self._verified(block)
        most = min(BLOCK_BYTES, self.sizes[block] * (self._longest + 1))
        try:
            sentences = _member(raw, most).decode("utf-8").split("\n")
        except (tarfile.TarError, zstandard.ZstdError, ValueError) as error:
            raise UserError(self._damage(block, f"what is no block ({error})")) from error
        if len(sentences) != self.sizes[block]:
            raise UserError(self._damage(block, f"{len(sentences)} sentences"))
        return sentences

    def is_readable(self, block: int) -> bool:
        """Whether a block can be read; tried once."""
        if self._tried is None:
            self._tried = bytearray(len(self.blocks))
        if not self._tried[block]:
            _ = self.blocks[block]  # damage of the index is no damage of a block
            try:
                self.read(block)
                self._tried[block] = READABLE
            except Refused:
                raise
            except UserError:
                self._tried[block] = DAMAGED
        return self._tried[block] == READABLE

    def replacement_block(self, block: int) -> int:
        """The block to read for this one: itself, or for a damaged one the next that can be read, wrapping at the end.

        It depends on the files alone, so every rank and worker chooses the same. UserError when none can be read.
        """
        for step in range(len(self.blocks)):
            candidate = (block + step) % len(self.blocks)
            if self.is_readable(candidate):
                return candidate
        raise UserError(f"no block of {self.path} can be read. {remedy(self.store.path)}")

    def find(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Blocks of sentences, and their lines there."""
        return self.sizes.find(ids)

    def first_id(self, block: int) -> int:
        """Id of the first sentence of a block."""
        return int(self.sizes.first_ids(np.array(block)))

    def sentence(self, sentence_id: int) -> str:
        """One sentence by its id."""
        if not 0 <= sentence_id < self.sentences:
            raise UserError(f"sentence {sentence_id} does not exist; ids run from 0 to {self.sentences - 1}.")
        (block,), (line,) = self.find(np.array([sentence_id]))
        return self.read(int(block))[line]

    def head(self, n: int) -> list[str]:
        """The first n sentences by id (fewer when the corpus is smaller); without damaged blocks under "skip"."""
        sentences: list[str] = []
        for block in range(len(self.blocks)):
            if len(sentences) >= n:
                break
            if self.on_damage == "stop" or self.is_readable(block):
                sentences.extend(self.read(block))
        return sentences[:n]

    def _verified(self, block: int) -> bytes:
        """The bytes of a block, from the cache of this machine or from the store."""
        expected, key = self.blocks[block], f"{self.fingerprint}-{block}"
        cached = self.store.cache.get(key) if self.store.cache else None
        if cached is not None and xxhash.xxh3_64_hexdigest(cached) == expected.xxh3:
            return cached
        try:
            raw = self.store.read(expected.shard, expected.offset, expected.length)
        except OSError as error:
            # never skipped: the shard may be undamaged, and the other ranks may be able to read it
            if (explained := self.store.explained(error, expected.shard)) is not None:
                raise explained from error
            why = error.strerror or str(error) or type(error).__name__
            raise UserError(self._damage(block, f"that it cannot be read ({why})")) from error
        checksum = xxhash.xxh3_64_hexdigest(raw)
        if len(raw) != expected.length or checksum != expected.xxh3:
            raise UserError(self._damage(block, f"{len(raw)} bytes with xxh3 {checksum}"))
        if self.store.cache:
            self.store.cache.put(key, raw)
        return raw

    def _damage(self, block: int, actual: str) -> str:
        expected = self.blocks[block]
        return (
            f"{self.store.path_of(expected.shard)} is damaged in block {block} at offset {expected.offset}: "
            f"expected {expected.length} bytes with xxh3 {expected.xxh3} and {expected.sentences} sentences, "
            f"found {actual}. "
            f"{remedy(self.store.path)}"
        )


def _member(raw: bytes, most: int) -> bytes:
    """The text of a block. ValueError: it would be larger than `most` bytes, which a few compressed ones may claim."""
    header = tarfile.TarInfo.frombuf(raw[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    payload = raw[tarfile.BLOCKSIZE : tarfile.BLOCKSIZE + header.size]
    if not header.name.endswith(".zst"):
        return payload
    size = zstandard.frame_content_size(payload)
    if not 0 <= size <= most:
        raise ValueError(f"{len(payload)} compressed bytes that claim {size}, where at most {most} can be")
    return zstandard.decompress(payload)
