"""Lanes: which part of the corpus each place of a batch reads, so that a rank that serves some places reads its part alone.

    a cycle     the positions of a step (of a mix: one corpus's positions of several steps); each has its place in the batch
    a lane      the places from one edge to the next: all of the cycle's positions at these places, for ever
    an epoch    is cut into as many parts as there are lanes; a lane's next position takes the next sentence of its part

The number of lanes comes from batch and corpus alone. Of a batch of at most LANES sentences each place is a lane. More lanes
let more processes read apart; a process holds a block or more for each lane that it serves.
"""

from __future__ import annotations

import numpy as np

LANES = 4096  # 1,024 ranks x 4 workers, each with a lane of its own
LANE_BLOCKS = 4  # of a lane, at least: at its ends it shares a block with its neighbours


def number_of_lanes(places: int, blocks: int) -> int:
    """For so many places of the batch, and blocks of the corpus."""
    return max(1, min(places, LANES, blocks // LANE_BLOCKS))


class Lanes:
    """Lane and turn of every position.

    places: (C,) the place in the batch of each position of a cycle. blocks: of the corpus. number: of lanes, where another
    than `number_of_lanes` is wanted.
    """

    def __init__(self, places: np.ndarray, batch: int, blocks: int, number: int | None = None) -> None:
        at_place = np.bincount(places, minlength=batch)
        self.number = number or number_of_lanes(int((at_place > 0).sum()), blocks)
        before = np.cumsum(at_place) - at_place
        lane_of = np.where(at_place > 0, before * self.number // max(len(places), 1), -1)
        self.lane_of = lane_of.astype(np.int32)  # (batch,) the lane of each place, -1: none of this corpus
        self._lanes = self.lane_of[places]  # (C,)
        self._widths = np.bincount(self._lanes, minlength=self.number)  # positions of a cycle in each lane
        by_lane = np.argsort(self._lanes, kind="stable")
        first = np.cumsum(self._widths) - self._widths
        self._turns = np.empty(len(places), dtype=np.int32)
        self._turns[by_lane] = np.arange(len(places)) - first[self._lanes[by_lane]]

    def find(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lane of each position (int64), and how many positions of that lane come before it."""
        cycles, inside = np.divmod(positions, len(self._lanes))
        lanes = self._lanes[inside]
        return lanes, cycles * self._widths[lanes] + self._turns[inside]

    def before(self, position: int) -> np.ndarray:
        """(lanes,) how many positions of each lane come before this one."""
        cycles, inside = divmod(position, len(self._lanes))
        return cycles * self._widths + np.bincount(self._lanes[:inside], minlength=self.number)

    def served(self, first: int, last: int) -> np.ndarray:
        """The lanes that have a place among first..last-1."""
        lanes = np.unique(self.lane_of[first:last])
        return lanes[lanes >= 0]

    def edges(self) -> np.ndarray:
        """The places at which another lane begins than at the place before, 0 left out."""
        own = np.flatnonzero(self.lane_of >= 0)
        return own[1:][np.diff(self.lane_of[own]) > 0]
