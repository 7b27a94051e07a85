"""A pretended GPU under the oracle's models and batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest import mock

import oracle

if TYPE_CHECKING:
    from unsee_dist.bench.pretended.world import Pretended


@contextmanager
def on_pretended_gpu(rank: int, size: int, carried: bool = False) -> Iterator[Pretended]:
    """The world, and the oracle's models and batches in it."""
    from unsee_dist.bench.pretended.device import DEVICE
    from unsee_dist.bench.pretended.world import pretended_world

    with pretended_world(rank, size, carried) as pretended, mock.patch.object(oracle, "DEVICE", DEVICE):
        yield pretended
