"""One way of reading a corpus, ours or a peer's, as the bench times it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from unsee_dist.data import Batch

Records = list[bytes] | list[str]  # of sentences: their texts, or their token ids as uint16


class Reader(NamedTuple):
    """batches: of sentences, or of tensors when the reader makes them itself (ours). ids: whether they are token ids."""

    name: str
    ids: bool
    batches: Callable[[], Iterable[Batch | Records]]
