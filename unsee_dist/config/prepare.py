"""The settings of a preparation: what its output depends on, beside its inputs.

Types, bounds, defaults and help texts of the flags of `unsee prepare`: defined here only.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from unsee_dist.config.section import Section
from unsee_dist.errors import UserError

BLOCK_SENTENCES = 1024  # of a member of a shard, which is read and verified as one


def _at_least(least: int, text: str) -> object:
    return Field(ge=least, description=text)


class PrepareSettings(Section):
    seed: Annotated[
        int, Field(ge=0, lt=1 << 64, description="Of the shuffle and of what --dev holds out.")
    ] = 0
    field: Annotated[str, Field(description="The key or column of the text, where there is one.")] = "text"
    split: Annotated[
        Literal["line", "sentence"], Field(description="line, or sentence: split each text by rule.")
    ] = "line"
    language: Annotated[str, Field(description="Of the texts that --split sentence splits.")] = "en"
    min_bytes: Annotated[int, _at_least(0, "Shorter sentences are dropped.")] = 1
    max_bytes: Annotated[int, _at_least(1, "Longer sentences are dropped.")] = 2000
    min_words: Annotated[
        int,
        _at_least(
            0,
            "Sentences of fewer words are dropped; 2 Chinese or Japanese characters, or 4 Thai ones, are a word.",
        ),
    ] = 3
    max_words: Annotated[int, _at_least(1, "Sentences of more words are dropped.")] = 200
    min_letters: Annotated[
        float, Field(ge=0, le=1, description="Least share of letters, not counting spaces.")
    ] = 0.0
    keep_language: Annotated[
        str | None,
        Field(description="Such as en: sentences in another language are dropped. Absent: all are kept."),
    ] = None
    shard_sentences: Annotated[
        int, Field(description=f"Sentences a shard, a multiple of {BLOCK_SENTENCES}.")
    ] = 256 * BLOCK_SENTENCES
    zst: Annotated[bool, Field(description="Compress the members of the shards.")] = False
    on_bad_record: Annotated[
        Literal["stop", "skip"],
        Field(description="stop, or skip: a line or row that cannot be read is counted and left out."),
    ] = "stop"
    dev: Annotated[int, _at_least(0, "Pairs held out of training into DIR/dev.tsv.")] = 0

    @field_validator("shard_sentences")
    @classmethod
    def _whole_blocks(cls, sentences: int) -> int:
        if sentences < BLOCK_SENTENCES or sentences % BLOCK_SENTENCES:
            nearest = max(BLOCK_SENTENCES, round(sentences / BLOCK_SENTENCES) * BLOCK_SENTENCES)
            raise UserError(f"must be a multiple of {BLOCK_SENTENCES}: write {nearest}")
        return sentences

    @model_validator(mode="after")
    def _bounds_in_order(self) -> PrepareSettings:
        for unit in ("bytes", "words"):
            low, high = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            if low > high:
                raise UserError(f"max_{unit} = {high} is less than min_{unit} = {low}: write at least {low}")
        if self.min_words > 1 and self.max_bytes < 2 * self.min_words - 1:
            raise UserError(
                f"max_bytes = {self.max_bytes} is less than min_words = {self.min_words} words can have: write at least "
                f"{2 * self.min_words - 1}"
            )
        if self.language != "en" and self.split != "sentence":
            raise UserError(f"language = {self.language} needs --split sentence: write that, too")
        return self
