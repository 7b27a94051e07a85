"""Scatter: a piece of the inputs to a run: its clean sentences, each once, sorted by keyed hash.

    run-000042 = one line of JSON {"sentences", "counts", "pairs"}, padded to 4096·k bytes, then the columns
                 high (n) u64 | low (n) u64 | ends (n) u64 | times (n) u32 | text: the sentences end to end

The hash is 128 bits of xxh3 of the sentence under the seed. Its order is the shuffle, its equality the dedup.
`times` is how often a piece holds the sentence, so that what is dropped later is counted in full.
A run has its name when it is complete, and then depends on the piece and the settings alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from unsee_dist.data.prepare import documents, holdout
from unsee_dist.data.prepare.clean import drop_reason, normalise
from unsee_dist.data.prepare.documents import InputSplit
from unsee_dist.data.prepare.languages import written_in
from unsee_dist.data.prepare.settings import PrepareSettings
from unsee_dist.files import atomic

PAGE = 4096


class SortTask(NamedTuple):
    """One task: clean this piece into that run."""

    piece: InputSplit
    run: Path
    settings: PrepareSettings


class Run(NamedTuple):
    """A run on disk. high, low: (n,) uint64 hashes, ascending. ends: (n,) of each in text. times: (n,)."""

    facts: dict[str, Any]
    high: np.ndarray
    low: np.ndarray
    ends: np.ndarray
    times: np.ndarray
    text: np.ndarray


def sort_split(task: SortTask) -> None:
    """Write the run of a piece."""
    settings, counts = task.settings, Counter[str]()
    kept: dict[bytes, bytes] = {}
    again: Counter[bytes] = Counter()
    candidates = holdout.Candidates(settings.dev, settings.seed)
    for document in _clean(task.piece, settings, counts):
        for sentence in document:
            data = sentence.encode()
            hashed = xxhash.xxh3_128_digest(data, settings.seed)
            if hashed in kept:
                again[hashed] += 1
            else:
                kept[hashed] = data
        if settings.dev:
            candidates.offer(document)
    ordered = sorted(kept)  # bytes of a digest are big-endian: this is the order of the numbers
    facts = {"sentences": len(ordered), "counts": counts, "pairs": candidates.chosen()}
    hashes = np.frombuffer(b"".join(ordered), dtype=">u8").reshape(-1, 2)
    texts = [kept[hashed] for hashed in ordered]
    columns = [
        hashes[:, 0].astype("<u8"),
        hashes[:, 1].astype("<u8"),
        np.cumsum(list(map(len, texts)), dtype="<u8"),
        np.array([1 + again[hashed] if hashed in again else 1 for hashed in ordered], dtype="<u4"),
    ]
    head = json.dumps(facts).encode()
    head = head.ljust((len(head) // PAGE + 1) * PAGE - 1) + b"\n"
    atomic.write_file(task.run, b"".join([head, *(column.tobytes() for column in columns), *texts]))


def facts_of(path: Path) -> dict[str, Any]:
    """The first line of a run."""
    with path.open("rb") as file:
        return json.loads(file.readline())


def open_run(path: Path) -> Run:
    """A run, mapped: reading a range of it reads that range."""
    with path.open("rb") as file:
        facts = json.loads(file.readline())
        at = file.tell()
    n, size = facts["sentences"], path.stat().st_size
    if not n:
        empty = np.empty(0, dtype="<u8")
        return Run(facts, empty, empty, empty, empty, np.empty(0, dtype=np.uint8))

    def column(kind: str, offset: int) -> np.ndarray:
        return np.memmap(path, dtype=kind, mode="r", offset=offset, shape=(n,))

    text = np.memmap(path, dtype=np.uint8, mode="r", offset=at + 28 * n, shape=(size - at - 28 * n,))
    numbers = column("<u8", at), column("<u8", at + 8 * n), column("<u8", at + 16 * n)
    return Run(facts, *numbers, column("<u4", at + 24 * n), text)


def _clean(piece: InputSplit, settings: PrepareSettings, counts: Counter[str]) -> Iterator[list[str]]:
    """Documents of normalised sentences that pass the filters; counts what happened to the others."""
    bytes_range = settings.min_bytes, settings.max_bytes
    words_range = settings.min_words, settings.max_words
    split = documents.splitter(settings.language) if settings.split == "sentence" else None
    kept_language = written_in(settings.keep_language) if settings.keep_language else None
    read = 0
    for document in documents.documents_of(piece, settings.field, apart=settings.dev > 0):
        sentences = split(document) if split else document
        read += len(sentences)
        kept = []
        for sentence in map(normalise, sentences):
            reason = drop_reason(sentence, bytes_range, words_range, settings.min_letters)
            if reason is None and kept_language and not kept_language(sentence):
                reason = "another language"
            if reason is None:
                kept.append(sentence)
            else:
                counts[reason] += 1
        yield kept
    counts["read"] += read
