"""Ragged: sentences of different lengths in one array. Without torch: preparation and `unsee shards` do not import it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np


class Ragged(NamedTuple):
    """Sentences of different lengths: ids, all of them end to end; lengths, (sentences,) int64."""

    ids: np.ndarray
    lengths: np.ndarray

    def cut(self, size: int) -> list[Ragged]:
        """Parts of `size` sentences; the last one has the rest."""
        if size >= len(self.lengths):
            return [self]
        ends = np.cumsum(self.lengths)
        cuts = range(size, len(self.lengths), size)
        ids = np.split(self.ids, [int(ends[i - 1]) for i in cuts])
        return [Ragged(*part) for part in zip(ids, np.split(self.lengths, list(cuts)), strict=True)]


def ragged(token_ids: Sequence[Sequence[int]]) -> Ragged:
    """Lists of token ids, end to end."""
    lengths = np.array([len(ids) for ids in token_ids], dtype=np.int64)
    return Ragged(np.fromiter(chain.from_iterable(token_ids), np.int64, int(lengths.sum())), lengths)


def joined(parts: Iterable[Ragged]) -> Ragged:
    """All sentences of the parts, end to end."""
    ids, lengths = zip(*parts, strict=True)
    return Ragged(np.concatenate(ids), np.concatenate(lengths))
