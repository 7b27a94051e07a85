"""No score for unusable embeddings: not finite, all at one point, or all on one line.

For such an encoder mteb gives NaN on STS, but a number on retrieval, classification and clustering. So all embeddings
are checked on their way to mteb, before anything is scored.
"""

import numpy as np

from unsee_dist.errors import UserError
from unsee_dist.metrics.cosine import CONSTANT
from unsee_dist.metrics.geometry import Moments, geometry, moments
from unsee_dist.metrics.names import EFFECTIVE_RANK, STD

ENOUGH = 16  # different texts: the rank of n points is at most n - 1, and a pair may be equal to the encoder
LINE = 2.0  # effective rank below which the embeddings differ along one direction only
WIDEST = 4096  # dimensions up to which D x D moments are cheap; wider is TF-IDF, which cannot collapse


class Unusable(UserError):
    """The encoder's embeddings cannot be scored; the message says why."""


class EmbeddingCheck:
    """The embeddings of one task so far. Raises Unusable as soon as they are."""

    def __init__(self) -> None:
        self.texts: set[int] = set()
        self.total: Moments | None = None

    def add(self, texts: list[str], z_ND: np.ndarray) -> None:
        """Check the embeddings of some texts. Raises Unusable."""
        broken = int(np.sum(~np.isfinite(z_ND).all(axis=1)))
        if broken:
            raise Unusable(f"{broken} of {len(z_ND)} embeddings are not finite (NaN or infinite)")
        self.texts.update(map(hash, texts))
        if z_ND.shape[1] > WIDEST:
            return
        part = moments(z_ND)
        self.total = part if self.total is None else self.total + part
        if len(self.texts) >= ENOUGH:
            self.geometry()

    def geometry(self) -> dict[str, float]:
        """The geometry of all embeddings so far ({} for fewer than two). Raises Unusable."""
        if self.total is None or self.total.count < 2:
            return {}
        values = geometry(self.total)
        if len(self.texts) > 1 and values[STD] < CONSTANT:
            raise Unusable(
                f"collapsed: the embeddings of {len(self.texts)} different texts are one point "
                f"(std {values[STD]:.1e}, 1 = isotropic)"
            )
        if len(self.texts) >= ENOUGH and values[EFFECTIVE_RANK] < LINE:
            raise Unusable(
                f"collapsed: the embeddings of {len(self.texts)} different texts lie on one line "
                f"(effective rank {values[EFFECTIVE_RANK]:.2f})"
            )
        return values
