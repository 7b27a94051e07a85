"""No score for embeddings that say nothing: not finite, all at one point, or all on one line.

mteb gives a NaN on STS but a number on retrieval, classification and clustering for such an encoder; so every
embedding is looked at on its way to mteb, before anything is scored.
"""

import numpy as np

from unsee_dist.errors import UserError
from unsee_dist.metrics.cosine import CONSTANT
from unsee_dist.metrics.geometry import Moments, geometry, moments

ENOUGH = 16  # different texts: the rank of n points is at most n - 1, and a pair may be equal to the encoder
LINE = 2.0  # effective rank below which the embeddings differ along one direction only
WIDEST = 4096  # dimensions up to which D x D moments are cheap; wider is TF-IDF, which cannot collapse


class Unusable(UserError):
    """The encoder's embeddings carry nothing that could be scored; the message says what they are."""


class Watch:
    """What one task's embeddings look like so far, and a stop where they are unusable."""

    def __init__(self) -> None:
        self.texts: set[int] = set()
        self.seen: Moments | None = None

    def add(self, texts: list[str], z_ND: np.ndarray) -> None:
        """Look at the embeddings of some texts. Raises Unusable."""
        broken = int(np.sum(~np.isfinite(z_ND).all(axis=1)))
        if broken:
            raise Unusable(f"{broken} of {len(z_ND)} embeddings are not finite (NaN or infinite)")
        self.texts.update(map(hash, texts))
        if z_ND.shape[1] > WIDEST:
            return
        part = moments(z_ND)
        self.seen = part if self.seen is None else self.seen + part
        if len(self.texts) >= ENOUGH:
            self.geometry()

    def geometry(self) -> dict[str, float]:
        """The geometry of all seen ({} when nothing was). Raises Unusable."""
        if self.seen is None or self.seen.count < 2:
            return {}
        found = geometry(self.seen)
        if len(self.texts) > 1 and found["std"] < CONSTANT:
            raise Unusable(
                f"collapsed: the embeddings of {len(self.texts)} different texts are one point "
                f"(std {found['std']:.1e}, 1 = isotropic)"
            )
        if len(self.texts) >= ENOUGH and found["effective_rank"] < LINE:
            raise Unusable(
                f"collapsed: the embeddings of {len(self.texts)} different texts lie on one line "
                f"(effective rank {found['effective_rank']:.2f})"
            )
        return found
