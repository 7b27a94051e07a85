"""Order: the sentence at each position of training, in pure integer arithmetic.

    position p = epoch·N + i                 positions continue over epochs: no batch is short, padded or repeated
    an epoch:  blocks in the order π_epoch, cut into windows of W blocks, sentences permuted inside a window: a sequence
               of N, which is cut into as many parts as there are lanes
    position p takes the next sentence of its lane's part (lanes.py)

So a batch has sentences of as many windows as it has lanes, and whoever serves a lane reads that part of the corpus alone.
All lanes together have at least OPEN_BLOCKS blocks open: W is 1 where there are as many lanes. A larger W mixes more and
reads more; preparation has already shuffled the sentences.

Only the sizes of the short blocks are stored (sizes.py): memory is O(short blocks + lanes), and everything else about a
position is computed from it.

π is a Feistel network over 2^(2h) >= n with cycle walking (Black and Rogaway 2002), its round function
splitmix64's finaliser (Steele et al. 2014). Only uint64 wrap-around arithmetic: the order is the same on every
machine, numpy and Python, and a golden digest in the tests pins it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unsee_dist.data.corpus.lanes import Lanes
from unsee_dist.data.corpus.sizes import BlockSizes

VERSION = 2  # of the order: kept in checkpoints. 1 had no lanes
OPEN_BLOCKS = 64
# positions that fit into the cache of a CPU: 4M of them take 0.2 s in chunks, 1.3 s at once
CHUNK = 1 << 15
ROUNDS = 8  # with 6, chi-square over 8,000 keys sees a bias at n <= 5; with 8 it does not
_MASK = (1 << 64) - 1
_POWERS = 1 << np.arange(63, dtype=np.int64)
GOLDEN, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def key(*parts: int) -> int:
    """One 64-bit key from integers (seed, epoch, window, ...); other parts, or another order, another key."""
    return _fold(len(parts), parts)


def keys(*parts: int, last: np.ndarray) -> np.ndarray:
    """(n,) uint64: key(*parts, each) for each of `last`."""
    state = np.uint64(_fold(len(parts) + 1, parts))
    return mix((last.astype(np.uint64) ^ state) + np.uint64(GOLDEN))


def _fold(state: int, parts: Sequence[int]) -> int:
    for part in parts:
        state = _mix_int((state ^ (part & _MASK)) + GOLDEN)
    return state


def permute(positions: np.ndarray, n: int, key: int, inverse: bool = False) -> np.ndarray:
    """Images of positions (uint64, each below n) under the keyed permutation of 0..n-1, or under its inverse."""
    half = max(3, ((n - 1).bit_length() + 1) // 2)  # 64 elements at least: a tiny network mixes badly
    round_keys = [np.uint64(_mix_int(key + GOLDEN * (r + 1))) for r in range(ROUNDS)]
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


def permute_each(positions: np.ndarray, n: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Like `permute`, each position with an n (int64) and a key (uint64) of its own."""
    images, halves = positions.astype(np.uint64), _half(n)
    for half in np.unique(halves).tolist():
        alike = np.flatnonzero(halves == half)
        for start in range(0, len(alike), CHUNK):
            chosen = alike[start : start + CHUNK]
            images[chosen] = _permute_chunk(images[chosen], n[chosen].astype(np.uint64), keys[chosen], half)
    return images


def _permute_chunk(x: np.ndarray, n: np.ndarray, keys: np.ndarray, half: int) -> np.ndarray:
    round_keys = [mix(keys + np.uint64((GOLDEN * (r + 1)) & _MASK)) for r in range(ROUNDS)]
    x = _feistel(x, half, round_keys)
    outside = np.flatnonzero(x >= n)
    while outside.size:
        x[outside] = _feistel(x[outside], half, [of_round[outside] for of_round in round_keys])
        outside = outside[x[outside] >= n[outside]]
    return x


def _half(n: np.ndarray) -> np.ndarray:
    """Bits of half a network for each n, as in `permute`."""
    bits = np.searchsorted(_POWERS, n - 1, side="right")
    return np.maximum(3, (bits + 1) // 2)


def _feistel(x: np.ndarray, half: int, round_keys: Sequence[np.uint64 | np.ndarray]) -> np.ndarray:
    """A bijection of 0..2^(2·half)-1."""
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = x >> shift, x & mask
    for round_key in round_keys:
        left, right = right, left ^ (mix(right + round_key) & mask)
    return (left << shift) | right


def _feistel_swapped(x: np.ndarray, half: int, round_keys: Sequence[np.uint64 | np.ndarray]) -> np.ndarray:
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

    Nearly all blocks are full, as `unsee prepare` writes them; for an epoch only the places of the short blocks and the
    starts of the lanes are computed: at 4 billion sentences a seek takes milliseconds, also across the end of an epoch.
    """

    def __init__(self, sizes: BlockSizes, seed: int, lanes: Lanes, window_blocks: int | None = None) -> None:
        self.sizes, self.sentences = sizes, sizes.sentences
        self.seed, self.lanes = seed, lanes
        self.window_blocks = window_blocks or -(-OPEN_BLOCKS // lanes.number)
        self._epoch: int | None = None

    @classmethod
    def of(cls, sizes: BlockSizes, seed: int, batch: int) -> Order:
        """Of one corpus, for batches of so many sentences."""
        return cls(sizes, seed, Lanes(np.arange(batch), batch, len(sizes)))

    def ids(self, positions: np.ndarray) -> np.ndarray:
        """Global sentence ids (int64) at these positions (>= 0, any order, across epochs)."""
        positions = np.asarray(positions, dtype=np.int64)
        epochs = positions // self.sentences
        ids = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            ids[chosen] = self._ids_of_epoch(epoch, positions[chosen])
        return ids

    def open_blocks(self, first: int, last: int) -> int:
        """The blocks to keep for places first..last-1 of the batch, so that each is read once in its time."""
        lanes = len(self.lanes.served(first, last))
        # a lane changes its windows at once, and then has not touched all blocks of the new one for a while
        kept = self.window_blocks * (2 if self.window_blocks > 1 else 1)
        return min(lanes * kept, len(self.sizes))

    def edges(self) -> np.ndarray:
        """The places of the batch at which lanes begin."""
        return self.lanes.edges()

    def read(self, epoch: int) -> np.ndarray:
        """(lanes,) sentences of all blocks that a lane's part of an epoch needs."""
        self._lay_out(epoch)
        starts, ends = self._starts, np.append(self._starts[1:], self.sentences)
        first, last = (self._window(np.maximum(each, 0))[0] for each in (starts, ends - 1))
        behind = np.minimum((last + 1) * self.window_blocks, len(self.sizes))
        read = self._laid.first_ids(behind) - self._laid.first_ids(first * self.window_blocks)
        return np.where(ends > starts, read, 0)

    def _ids_of_epoch(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        self._lay_out(epoch)
        lanes, turns = self.lanes.find(positions)
        places = turns + self._shifts[lanes]  # in the epoch's sequence
        windows, starts, sizes = self._window(places)
        mixed = permute_each(places - starts, sizes, keys(self.seed, epoch, 1, last=windows))
        slots, lines = self._laid.find(mixed.astype(np.int64) + starts)
        blocks = permute(slots, len(self.sizes), key(self.seed, epoch, 0)).astype(np.int64)
        return self.sizes.first_ids(blocks) + lines

    def _window(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The window of each place of the epoch's sequence, the place where that begins, and its sentences."""
        windows = self._laid.find(places)[0] // self.window_blocks
        starts = self._laid.first_ids(windows * self.window_blocks)
        ends = self._laid.first_ids(np.minimum((windows + 1) * self.window_blocks, len(self.sizes)))
        return windows, starts, ends - starts

    def _lay_out(self, epoch: int) -> None:
        """The sizes of the epoch's blocks in its order, and where each lane's part begins."""
        if epoch == self._epoch:
            return
        slots = permute(self.sizes.short, len(self.sizes), key(self.seed, epoch, 0), inverse=True)
        by_slot = np.argsort(slots)
        self._laid = BlockSizes(
            len(self.sizes), self.sizes.full, slots[by_slot].astype(np.int64), self.sizes.missing[by_slot]
        )
        before = self.lanes.before(epoch * self.sentences)
        parts = self.lanes.before((epoch + 1) * self.sentences) - before
        self._starts = np.cumsum(parts) - parts
        self._shifts = self._starts - before
        self._epoch = epoch
