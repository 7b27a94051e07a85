"""One way of reading a corpus, ours or a peer's, as the bench times it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Reader(NamedTuple):
    """batches: of sentences as bytes, or of tensors where it makes them itself (ours)."""

    name: str
    ids: bool
    batches: Callable[[], Iterable[Any]]
