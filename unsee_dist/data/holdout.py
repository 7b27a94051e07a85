"""Held-out pairs: a retrieval question the corpus asks about itself, kept out of training.

A document of several sentences: its first sentence asks for the rest. Where there are too few of those, a lone
sentence: its first half asks for its second half. Which ones: those whose question has the smallest keyed hash, so
the choice does not depend on the order or the number of the inputs' files.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import xxhash

HALF_WORDS = 4  # a lone sentence has at least twice as many words
HEADER = "query\tanswer"


class Pair(NamedTuple):
    """A question, its answer, and the sentences that training must not see."""

    query: str
    answer: str
    sentences: tuple[str, ...]


def hold_out(documents: Iterable[list[str]], n: int, seed: int) -> list[Pair]:
    """n pairs with n different questions and n different answers, from documents of normalised sentences.

    Raises ValueError when the documents give fewer.
    """
    smallest = heapq.nsmallest(2 * n, _candidates(documents, seed))  # twice: answers repeat, too
    by_answer = {pair.answer: pair for *_, pair in reversed(smallest)}
    pairs = [pair for *_, pair in smallest if by_answer[pair.answer] is pair][:n]
    if len(pairs) < n:
        raise ValueError(
            f"--dev {n}: the inputs give {len(pairs)} held-out pairs. Write --dev {len(pairs)} or less."
        )
    return pairs


def table(pairs: Iterable[Pair]) -> bytes:
    """The pairs as tab-separated text with a header, no quoting: a normalised sentence holds no tab."""
    lines = [HEADER, *(f"{pair.query}\t{pair.answer}" for pair in pairs)]
    return ("\n".join(lines) + "\n").encode()


def _candidates(documents: Iterable[list[str]], seed: int) -> Iterator[tuple[bool, int, Pair]]:
    """(is a lone sentence, keyed hash, pair): in the order of preference."""
    seen = set()
    for sentences in documents:
        pair = _pair(sentences)
        if pair is None:
            continue
        rank = xxhash.xxh3_128_intdigest(pair.query.encode(), seed=seed)
        if rank not in seen:
            seen.add(rank)
            yield len(sentences) == 1, rank, pair


def _pair(sentences: list[str]) -> Pair | None:
    if len(sentences) > 1:
        return Pair(sentences[0], " ".join(sentences[1:]), tuple(sentences))
    words = sentences[0].split(" ") if sentences else []
    half = len(words) // 2
    if half < HALF_WORDS:
        return None
    return Pair(" ".join(words[:half]), " ".join(words[half:]), (sentences[0],))
