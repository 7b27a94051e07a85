"""Settings of a preparation: what its output depends on, beside its inputs."""

from __future__ import annotations

from dataclasses import dataclass

from unsee_dist.data.corpus.shard_writer import BLOCK_SENTENCES
from unsee_dist.errors import UserError

SPLITS = ("line", "sentence")


@dataclass(frozen=True)
class PrepareSettings:
    """seed: of the shuffle and of what is held out. field: of jsonl, tables and datasets. split: "line", a text is
    a sentence; "sentence", it is split by the rules of `language`. Bytes and words: bounds of a kept sentence.
    min_letters: least share of letters among its characters that are no spaces. keep_language: drop what is written in
    another language (languages.py); None = keep all.

    shard_sentences: of a shard, in whole blocks. zst: members are compressed. dev: pairs held out of training into dev.tsv (holdout.py).
    """

    seed: int = 0
    field: str = "text"
    split: str = "line"
    language: str = "en"
    min_bytes: int = 1
    max_bytes: int = 2000
    min_words: int = 3
    max_words: int = 200
    min_letters: float = 0.0
    keep_language: str | None = None
    shard_sentences: int = 256 * BLOCK_SENTENCES
    zst: bool = False
    dev: int = 0

    def __post_init__(self) -> None:
        block = BLOCK_SENTENCES
        if self.shard_sentences < block or self.shard_sentences % block:
            fits = max(block, round(self.shard_sentences / block) * block)
            raise UserError(
                f"shard_sentences = {self.shard_sentences} is not whole blocks of {block}. Use {fits}."
            )
        if not 0 <= self.seed < 1 << 64:
            raise UserError(f"seed = {self.seed} does not fit 64 bits. Use 0 or a larger number.")
        if self.dev < 0:
            raise UserError(f"dev = {self.dev} is not a number of pairs. Use 0 for none.")
        if self.split not in SPLITS:
            raise UserError(f"split = {self.split} is unknown. Use {' or '.join(SPLITS)}.")
        if not 0 <= self.min_letters <= 1:
            raise UserError(f"min_letters = {self.min_letters} is not a share. Use a number from 0 to 1.")
