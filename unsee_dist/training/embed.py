"""Embeddings of the online encoder in the middle of training, through the engine.

Through the engine because calling a submodule directly invalidates ZeRO-3's record of the order of layers, silently.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from unsee_dist.data.stream.packing import pack
from unsee_dist.distributed.engine import Engine
from unsee_dist.supervision.phases import enter_phase
from unsee_dist.supervision.signals import Stopped, StopSignal

AT_ONCE = 64  # sentences: a few packed rows, small beside a training step


def embedder(
    engine: Engine, tokenizer: Any, max_tokens: int, share_rows: bool, stop: StopSignal
) -> Callable[[list[str]], np.ndarray]:
    """A function from sentences to (n, D) float32, dropout off. Collective: all ranks bring equally many sentences.

    It raises Stopped when any rank was asked to stop meanwhile: an evaluation is made again after the resume.
    """

    @torch.no_grad()
    def embed(sentences: list[str]) -> np.ndarray:
        engine.train(False)
        found = []
        try:
            for at in range(0, len(sentences), AT_ONCE):
                enter_phase("evaluation")
                if stop.agreed(engine.world):
                    raise Stopped
                texts = sentences[at : at + AT_ONCE]
                tokens = tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"]
                micro_batch = pack(tokens, max_tokens, tokenizer.pad_token_id, share_rows).to(
                    engine.world.device
                )
                found.append(engine((micro_batch,), embed=True).float().cpu())
        finally:
            engine.train(True)
        return torch.cat(found).numpy()

    return embed
