"""Shards: a prepared corpus, read by block, every byte verified.

    DIR/index.json          what the shards must be: written last, so a folder without it is no corpus
    DIR/shard-000000.tar    plain webdataset tar; a member is a block: 1,024 newline-joined sentences, `.txt`
    DIR/dev.tsv             held-out (query, answer) pairs, when asked for

Stock readers pass over damage without a word; this one stops, or is told to skip and counts.
A sentence's id is its place in shard order (shard by shard, block by block, line by line), from 0.
"""

from __future__ import annotations

import tarfile
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
import xxhash

from unsee_dist.data.index import Block, blocks_of, read_index, remedy

OnDamage = Literal["stop", "skip"]


class Shards:
    """A corpus written by `unsee prepare`.

        shards = Shards("corpus/")
        shards.sentences, len(shards.blocks), shards.fingerprint
        shards.read(0)          # the sentences of the first block, verified
        shards.sentence(70_000) # one sentence by its id

    on_damage: "stop", or "skip": `standin` then names the block to read for a damaged one.
    Raises ValueError, one sentence, when the folder is no corpus, is empty, incomplete or damaged; with "skip"
    only for what the index itself says.
    """

    def __init__(self, path: str | Path, on_damage: OnDamage = "stop") -> None:
        self.path, self.on_damage = Path(path), on_damage
        self.index = read_index(self.path, sizes=on_damage == "stop")
        self.fingerprint: str = self.index["fingerprint"]
        self.blocks = [block for shard in self.index["shards"] for block in blocks_of(shard)]
        self.sizes = np.array([block.sentences for block in self.blocks], dtype=np.int64)
        self._ends = list(accumulate(int(size) for size in self.sizes))
        self._sound: dict[int, bool] = {}
        self.sentences = self._ends[-1]

    def read(self, block: int) -> list[str]:
        """The sentences of a block, after checking its bytes against the index."""
        expected = self.blocks[block]
        raw = self._bytes(block, expected)
        found = xxhash.xxh3_64_hexdigest(raw)
        if len(raw) != expected.length or found != expected.xxh3:
            raise ValueError(self._damage(block, f"{len(raw)} bytes with xxh3 {found}"))
        size = tarfile.TarInfo.frombuf(raw[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape").size
        payload = raw[tarfile.BLOCKSIZE : tarfile.BLOCKSIZE + size]
        sentences = payload.decode("utf-8").split("\n")
        if len(sentences) != expected.sentences:
            raise ValueError(self._damage(block, f"{len(sentences)} sentences"))
        return sentences

    def sound(self, block: int) -> bool:
        """Whether a block can be read; looked up once."""
        if block not in self._sound:
            try:
                self.read(block)
                self._sound[block] = True
            except ValueError:
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
        raise ValueError(f"no block of {self.path} can be read. {remedy(self.path)}")

    def find(self, sentence_id: int) -> tuple[int, int]:
        """Block of a sentence and its line there."""
        block = bisect_right(self._ends, sentence_id)
        return block, sentence_id - self.first_id(block)

    def first_id(self, block: int) -> int:
        """Id of the first sentence of a block."""
        return self._ends[block] - int(self.sizes[block])

    def sentence(self, sentence_id: int) -> str:
        """One sentence by its id."""
        if not 0 <= sentence_id < self.sentences:
            raise ValueError(
                f"sentence {sentence_id} does not exist; ids run from 0 to {self.sentences - 1}."
            )
        block, line = self.find(sentence_id)
        return self.read(block)[line]

    def head(self, n: int) -> list[str]:
        """The first n sentences by id (fewer when the corpus is smaller); without damaged blocks under "skip"."""
        found: list[str] = []
        for block in range(len(self.blocks)):
            if len(found) >= n:
                break
            if self.on_damage == "stop" or self.sound(block):
                found.extend(self.read(block))
        return found[:n]

    def _bytes(self, block: int, expected: Block) -> bytes:
        try:
            with (self.path / expected.shard).open("rb") as file:
                file.seek(expected.offset)
                return file.read(expected.length)
        except OSError as error:
            raise ValueError(self._damage(block, f"that it cannot be read ({error.strerror})")) from error

    def _damage(self, block: int, found: str) -> str:
        want = self.blocks[block]
        return (
            f"{self.path / want.shard} is damaged in block {block} at offset {want.offset}: expected {want.length} "
            f"bytes with xxh3 {want.xxh3} and {want.sentences} sentences, found {found}. {remedy(self.path)}"
        )
