"""The key of a sentence's dropout masks in a step: 64 bits of (seed, step, sentence id), and of nothing else.

Masks are data of this method: dropout is its only augmentation. So they are keyed where the data are chosen, and the
model draws them from the key alone (model/masks.py).
"""

from __future__ import annotations

import numpy as np

from unsee_dist.data.corpus.order import key, mix

VIEWS = 2  # of a sentence in a step, each under masks of its own
MASKS = 0x6D61736B  # "mask": no other key of a run is made of this and three parts


def mask_keys(seed: int, step: int, ids: np.ndarray) -> np.ndarray:
    """(S,) int64 ids -> (S,) int64 keys."""
    base = np.uint64(key(MASKS, seed, step))
    with np.errstate(over="ignore"):
        return mix(mix(ids.astype(np.uint64) ^ base) + base).view(np.int64)
