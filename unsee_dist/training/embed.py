"""Embeddings of the online encoder during training, computed through the engine.

Calling a submodule directly would silently invalidate ZeRO-3's record of the order of layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from unsee_dist.data.stream.packing import pack
from unsee_dist.distributed.engine import Engine
from unsee_dist.model.unsee import Unsee
from unsee_dist.supervision.phases import enter_phase
from unsee_dist.supervision.signals import Stopped, StopSignal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CHUNK_SENTENCES = 64  # embedded at once: a few packed rows, small beside a training step


def embedder(
    engine: Engine[Unsee],
    tokenizer: PreTrainedTokenizerFast,
    max_tokens: int,
    share_rows: bool,
    stop: StopSignal,
    progress: Callable[[int, int], None],
) -> Callable[[list[str]], np.ndarray]:
    """A function from sentences to (n, D) float32, dropout off. Collective: every rank passes the same number of sentences.

    progress: called with how many of them are done, and how many there are. It raises Stopped when any rank received a signal: the evaluation is repeated after the resume.
    """

    @torch.no_grad()
    def embed(sentences: list[str]) -> np.ndarray:
        engine.train(False)
        embeddings = []
        try:
            for start in range(0, len(sentences), CHUNK_SENTENCES):
                enter_phase("evaluation")
                if stop.requested_anywhere(engine.world):
                    raise Stopped
                progress(start, len(sentences))
                texts = sentences[start : start + CHUNK_SENTENCES]
                tokens = tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"]
                micro_batch = pack(tokens, max_tokens, tokenizer.pad_token_id, share_rows).to(
                    engine.world.device
                )
                embeddings.append(engine((micro_batch,), embed=True).float().cpu())
        finally:
            progress(len(sentences), len(sentences))
            engine.train(True)
        return torch.cat(embeddings).numpy()

    return embed
