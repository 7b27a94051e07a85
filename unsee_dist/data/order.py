"""Order: which sentence stands at which position of training, in pure integer arithmetic.

    position p = epoch·N + i                 positions run on over epochs: no batch is short, padded or repeated
    an epoch:  blocks in the order π_epoch, cut into windows of W blocks, sentences permuted inside a window

Nothing is stored but the blocks' sizes: memory is O(blocks), and a reader of a window needs W blocks. A larger W
mixes more and reads more; blocks were already shuffled when they were written.

π is a Feistel network over 2^(2h) >= n with cycle walking (Black and Rogaway 2002), its round function
splitmix64's finaliser (Steele et al. 2014). Only uint64 wrap-around arithmetic: the order is the same on every
machine, numpy and Python, and a golden digest in the tests pins it.
"""

from __future__ import annotations

import numpy as np

WINDOW_BLOCKS = 64
AT_ONCE = 1 << 15  # positions that stay in the cache: 4M of them take 0.2 s, all at once 1.3 s
ROUNDS = 8  # with 6, chi-square over 8,000 keys sees a bias at n <= 5; with 8 it does not
_MASK = (1 << 64) - 1
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def key(*parts: int) -> int:
    """One 64-bit key from integers (seed, epoch, window, ...); other parts, or another order, another key."""
    state = len(parts)
    for part in parts:
        state = _mix_int((state ^ (part & _MASK)) + _GOLDEN)
    return state


def permute(positions: np.ndarray, n: int, key: int) -> np.ndarray:
    """Images of positions (uint64, each below n) under the keyed permutation of 0..n-1."""
    half = max(3, ((n - 1).bit_length() + 1) // 2)  # 64 elements at least: a tiny network mixes badly
    round_keys = [_mix_int(key + _GOLDEN * (r + 1)) for r in range(ROUNDS)]
    images = positions.astype(np.uint64)
    for start in range(0, len(images), AT_ONCE):
        part = images[start : start + AT_ONCE]
        part[:] = _feistel(part, half, round_keys)
        outside = np.flatnonzero(part >= n)
        while (
            outside.size
        ):  # walk the cycle until it is back inside; the domain is at most 4n (or 64), so soon
            part[outside] = _feistel(part[outside], half, round_keys)
            outside = outside[part[outside] >= n]
    return images


def _feistel(x: np.ndarray, half: int, round_keys: list[int]) -> np.ndarray:
    """A bijection of 0..2^(2·half)-1."""
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = x >> shift, x & mask
    for round_key in round_keys:
        left, right = right, left ^ (_mix(right + np.uint64(round_key)) & mask)
    return (left << shift) | right


def _mix(z: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser, in place (z is a temporary of _feistel's)."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(_MIX_1)
    z ^= z >> np.uint64(27)
    z *= np.uint64(_MIX_2)
    z ^= z >> np.uint64(31)
    return z


def _mix_int(z: int) -> int:
    z &= _MASK
    z = ((z ^ (z >> 30)) * _MIX_1) & _MASK
    z = ((z ^ (z >> 27)) * _MIX_2) & _MASK
    return z ^ (z >> 31)


class Order:
    """Sentence ids by position, for a corpus of blocks with the given sizes.

    sizes: (blocks,) sentences in each block, in the corpus's order. Holds the tables of the last epoch asked for.
    """

    def __init__(self, sizes: np.ndarray, seed: int, window_blocks: int = WINDOW_BLOCKS) -> None:
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.first_ids = np.cumsum(self.sizes) - self.sizes
        self.sentences = int(self.sizes.sum())
        self.seed = seed
        self.window_blocks = window_blocks
        self._epoch: int | None = None

    def ids(self, positions: np.ndarray) -> np.ndarray:
        """Global sentence ids (int64) at these positions (>= 0, any order, across epochs)."""
        positions = np.asarray(positions, dtype=np.int64)
        epochs, inside = np.divmod(positions, self.sentences)
        ids = np.empty_like(positions)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            ids[chosen] = self._ids_of_epoch(int(epoch), inside[chosen])
        return ids

    def _ids_of_epoch(self, epoch: int, inside: np.ndarray) -> np.ndarray:
        self._lay_out(epoch)
        windows = np.searchsorted(self._window_starts, inside, side="right") - 1
        mixed = np.empty_like(inside)
        for window in np.unique(windows):
            chosen = windows == window
            start = self._window_starts[window]
            size = int(self._window_starts[window + 1] - start)
            images = permute(inside[chosen] - start, size, key(self.seed, epoch, 1, int(window)))
            mixed[chosen] = images.astype(np.int64) + start
        slots = np.searchsorted(self._starts, mixed, side="right") - 1
        return self.first_ids[self._blocks[slots]] + mixed - self._starts[slots]

    def _lay_out(self, epoch: int) -> None:
        """The epoch's blocks in order, where each starts, and where each window starts (with the end)."""
        if epoch == self._epoch:
            return
        blocks = len(self.sizes)
        order = permute(np.arange(blocks, dtype=np.uint64), blocks, key(self.seed, epoch, 0))
        self._blocks = order.astype(np.int64)
        sizes = self.sizes[self._blocks]
        self._starts = np.cumsum(sizes) - sizes
        self._window_starts = np.append(self._starts[:: self.window_blocks], self.sentences)
        self._epoch = epoch
