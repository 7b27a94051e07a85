"""The one verdict on an encoder before it is scored or given away: what its training said, else what its embeddings are.

A collapsed encoder may score on some task by chance: -1.9, or 20. So the verdict is on the encoder, not on a task.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from unsee_dist.metrics.embedding_check import EmbeddingCheck, Unusable
from unsee_dist.metrics.verdict import collapse
from unsee_dist.tracking.note import NOTE
from unsee_dist.training.checkpoint.manifest import NAME, read_manifest

TEXTS = 64


def why_unusable(
    folder: Path | None, tokenizer: object, embed: Callable[[list[str]], np.ndarray]
) -> str | None:
    """Why an encoder cannot be used; None where nothing speaks against it. folder: of the export or checkpoint."""
    trained = _verdict_of_training(folder) if folder is not None else None
    if trained is not None or not isinstance(tokenizer, PreTrainedTokenizerBase):
        return trained
    texts = random_texts(tokenizer)
    try:
        EmbeddingCheck().add(texts, embed(texts))
    except Unusable as error:
        return str(error)
    return None


def _verdict_of_training(folder: Path) -> str | None:
    """The verdict of the evaluation at the step that a folder holds."""
    if (folder / NAME).is_file():
        progress = read_manifest(folder).progress
        return collapse(progress.scores) if progress.evaluated == progress.step else None
    note = NOTE.read(folder)
    return note.collapsed if note else None


def random_texts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Random texts of the encoder's own vocabulary, in any language."""
    rng = random.Random(0)
    known = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    return [str(tokenizer.decode(rng.choices(known, k=8))) for _ in range(TEXTS)]
