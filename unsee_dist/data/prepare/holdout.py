"""Held-out pairs: questions and answers for retrieval, made from the corpus and kept out of training.

Of a document of several sentences the first is the question, the others are the answer. Where there are too few of
those, the first half of a single sentence is the question and the second half the answer. Candidates are the pairs whose
question has the smallest keyed hash, so the choice does not depend on the order or the number of the input files.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import NamedTuple

import xxhash

from unsee_dist.errors import UserError

HALF_WORDS = 4  # a lone sentence has at least twice as many words
HEADER = "query\tanswer"


class Pair(NamedTuple):
    """A question, its answer, and the sentences that are removed from training."""

    query: str
    answer: str
    sentences: tuple[str, ...]


Candidate = tuple[
    bool, int, Pair
]  # is a single sentence, keyed hash of the question, pair: the smallest are preferred


class Candidates:
    """The best candidates of a part of the corpus, enough of them to choose n from all parts together."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed = n, seed
        self._best: dict[int, Candidate] = {}  # by the hash of the question: the smallest candidate with it

    def add(self, sentences: list[str]) -> None:
        """Add the pair of a document of normalised sentences, if it gives one."""
        pair = _pair(sentences)
        if pair is None:
            return
        rank = xxhash.xxh3_128_intdigest(pair.query.encode(), seed=self.seed)
        candidate = (len(sentences) == 1, rank, pair)
        self._best[rank] = min(candidate, self._best.get(rank, candidate))

    def best(self) -> list[Candidate]:
        """The 2n smallest: twice as many as needed, since answers may repeat."""
        return heapq.nsmallest(2 * self.n, self._best.values())


class HeldOut:
    """n pairs with n different questions and n different answers, from the candidates of all parts."""

    def __init__(self, n: int) -> None:
        self.n = n
        self._best: dict[int, Candidate] = {}

    def add(self, part: list[Candidate]) -> None:
        """Add the candidates of a part. Only those that may be chosen are kept, whatever the number of parts."""
        for single, rank, pair in part:
            self._best[rank] = min((single, rank, pair), self._best.get(rank, (single, rank, pair)))
        if len(self._best) > 8 * self.n:
            self._best = {candidate[1]: candidate for candidate in self._smallest()}

    def pairs(self) -> list[Pair]:
        """The pairs. Raises UserError when there are fewer than n."""
        smallest = self._smallest()
        by_answer = {pair.answer: pair for *_, pair in reversed(smallest)}
        pairs = [pair for *_, pair in smallest if by_answer[pair.answer] is pair][: self.n]
        if len(pairs) < self.n:
            instead = f"--dev {len(pairs)} or less" if pairs else "--dev 0, or give more text"
            raise UserError(f"--dev {self.n}: the inputs give {len(pairs)} held-out pairs. Write {instead}.")
        return pairs

    def _smallest(self) -> list[Candidate]:
        return heapq.nsmallest(2 * self.n, self._best.values())


def table(pairs: Iterable[Pair]) -> bytes:
    """The pairs as tab-separated text with a header, no quoting: a normalised sentence holds no tab."""
    lines = [HEADER, *(f"{pair.query}\t{pair.answer}" for pair in pairs)]
    return ("\n".join(lines) + "\n").encode()


def neighbours(pairs: Iterable[Pair], seed: int) -> list[Pair]:
    """Another question of every held-out document: one sentence, whose answer is the next. None of a single sentence."""
    by_query: dict[str, Pair] = {}
    for pair in pairs:
        if len(pair.sentences) > 1:
            key = xxhash.xxh3_64_intdigest(pair.query.encode(), seed=seed)
            first = key % (len(pair.sentences) - 1)
            query, answer = pair.sentences[first : first + 2]
            by_query.setdefault(query, Pair(query, answer, pair.sentences))
    return list(by_query.values())


def _pair(sentences: list[str]) -> Pair | None:
    if len(sentences) > 1:
        return Pair(sentences[0], " ".join(sentences[1:]), tuple(sentences))
    words = sentences[0].split(" ") if sentences else []
    half = len(words) // 2
    if half < HALF_WORDS:
        return None
    return Pair(" ".join(words[:half]), " ".join(words[half:]), (sentences[0],))
