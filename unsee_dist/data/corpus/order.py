"""Order: the sentence at each position of training, in pure integer arithmetic.

    position p = epoch·N + i                 positions continue over epochs: no batch is short, padded or repeated
    an epoch:  blocks in the order π_epoch, cut into windows of W blocks, sentences permuted inside a window

Only the sizes of the short blocks are stored (sizes.py): memory is O(short blocks + windows), a seek computes a window, and
reading a window needs W blocks. A larger W mixes more and reads more; preparation has already shuffled the sentences.

π is a Feistel network over 2^(2h) >= n with cycle walking (Black and Rogaway 2002), its round function
splitmix64's finaliser (Steele et al. 2014). Only uint64 wrap-around arithmetic: the order is the same on every
machine, numpy and Python, and a golden digest in the tests pins it.
"""

from __future__ import annotations

import numpy as np

from unsee_dist.data.corpus.sizes import BlockSizes

WINDOW_BLOCKS = 64
# positions that fit into the cache of a CPU: 4M of them take 0.2 s in chunks, 1.3 s at once
CHUNK = 1 << 15
ROUNDS = 8  # with 6, chi-square over 8,000 keys sees a bias at n <= 5; with 8 it does not
_MASK = (1 << 64) - 1
GOLDEN, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def key(*parts: int) -> int:
    """One 64-bit key from integers (seed, epoch, window, ...); other parts, or another order, another key."""
    state = len(parts)
    for part in parts:
        state = _mix_int((state ^ (part & _MASK)) + GOLDEN)
    return state


def permute(positions: np.ndarray, n: int, key: int, inverse: bool = False) -> np.ndarray:
    """Images of positions (uint64, each below n) under the keyed permutation of 0..n-1, or under its inverse."""
    half = max(3, ((n - 1).bit_length() + 1) // 2)  # 64 elements at least: a tiny network mixes badly
    round_keys = [_mix_int(key + GOLDEN * (r + 1)) for r in range(ROUNDS)]
    network = _feistel
    if inverse:
        round_keys.reverse()
        network = _feistel_swapped
    images = positions.astype(np.uint64)
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        chunk[:] = network(chunk, half, round_keys)
        outside = np.flatnonzero(chunk >= n)
        while (
            outside.size
        ):  # walk the cycle until it is back inside: a few steps, since the domain is at most 4n (or 64)
            chunk[outside] = network(chunk[outside], half, round_keys)
            outside = outside[chunk[outside] >= n]
    return images


def _feistel(x: np.ndarray, half: int, round_keys: list[int]) -> np.ndarray:
    """A bijection of 0..2^(2·half)-1."""
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = x >> shift, x & mask
    for round_key in round_keys:
        left, right = right, left ^ (mix(right + np.uint64(round_key)) & mask)
    return (left << shift) | right


def _feistel_swapped(x: np.ndarray, half: int, round_keys: list[int]) -> np.ndarray:
    """The inverse of _feistel when the keys are reversed: its halves are swapped at the input and at the output."""
    return _swap(_feistel(_swap(x, half), half, round_keys), half)


def _swap(x: np.ndarray, half: int) -> np.ndarray:
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    return ((x & mask) << shift) | (x >> shift)


def mix(z: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser, in place (z is a temporary of _feistel's)."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(MIX_1)
    z ^= z >> np.uint64(27)
    z *= np.uint64(MIX_2)
    z ^= z >> np.uint64(31)
    return z


def _mix_int(z: int) -> int:
    z &= _MASK
    z = ((z ^ (z >> 30)) * MIX_1) & _MASK
    z = ((z ^ (z >> 27)) * MIX_2) & _MASK
    return z ^ (z >> 31)


class Order:
    """Sentence ids by position, for a corpus of blocks with the given sizes.

    Nearly all blocks are full, as `unsee prepare` writes them; for an epoch only the places of the short blocks and the starts of the windows are computed, and the blocks of
    a window on first use: at 4 billion sentences a seek takes milliseconds, also across the end of an epoch.
    """

    def __init__(self, sizes: BlockSizes, seed: int, window_blocks: int = WINDOW_BLOCKS) -> None:
        self.sizes, self.sentences = sizes, sizes.sentences
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
        touched = np.unique(windows)
        for window in touched:
            chosen = windows == window
            start = self._window_starts[window]
            size = int(self._window_starts[window + 1] - start)
            images = permute(inside[chosen] - start, size, key(self.seed, epoch, 1, int(window)))
            mixed[chosen] = images.astype(np.int64) + start
        if not np.array_equal(touched, self._windows):
            self._lay_out_windows(epoch, touched)
        places = np.searchsorted(self._starts, mixed, side="right") - 1
        return self.sizes.first_ids(self._blocks[places]) + mixed - self._starts[places]

    def _lay_out(self, epoch: int) -> None:
        """The places of the epoch's short blocks, and the start of each of its windows (and the end of the last)."""
        if epoch == self._epoch:
            return
        slots = permute(self.sizes.short, len(self.sizes), key(self.seed, epoch, 0), inverse=True)
        by_slot = np.argsort(slots)
        self._short_slots = slots[by_slot].astype(np.int64)
        self._missing_before = np.concatenate([[0], np.cumsum(self.sizes.missing[by_slot])])
        window_slots = np.arange(0, len(self.sizes), self.window_blocks)
        self._window_starts = np.append(self._starts_of(window_slots), self.sentences)
        self._windows = np.empty(0, dtype=np.int64)
        self._epoch = epoch

    def _lay_out_windows(self, epoch: int, windows: np.ndarray) -> None:
        """The blocks of these windows (ascending) in the epoch's order, and the start of each."""
        slots = (windows[:, None] * self.window_blocks + np.arange(self.window_blocks)).ravel()
        slots = slots[slots < len(self.sizes)]
        self._blocks = permute(slots, len(self.sizes), key(self.seed, epoch, 0)).astype(np.int64)
        self._starts = self._starts_of(slots)
        self._windows = windows

    def _starts_of(self, slots: np.ndarray) -> np.ndarray:
        """The position in the epoch at which the block in each slot starts."""
        return slots * self.sizes.full - self._missing_before[np.searchsorted(self._short_slots, slots)]
