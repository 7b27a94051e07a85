"""Sort: a split of the inputs becomes a run: its clean sentences, each once, sorted by keyed hash.

    run-000042 = one line of JSON {"sentences", "counts", "pairs"}, padded to 4096·k bytes, then the columns
                 high (n) u64 | low (n) u64 | ends (n) u64 | times (n) u32 | text: the sentences end to end

The hash is 128 bits of xxh3 of the sentence under the seed. Sorting by it shuffles, equal hashes
are duplicates. `times` is how often the split has the sentence, so that all duplicates are counted. A run gets its
name when it is complete, and depends on the split and the settings alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from pydantic import TypeAdapter

from unsee_dist.config.prepare import PrepareSettings
from unsee_dist.data.prepare import documents, holdout
from unsee_dist.data.prepare.clean import drop_reason, normalise
from unsee_dist.data.prepare.documents import InputSplit
from unsee_dist.data.prepare.languages import is_written_in
from unsee_dist.files import atomic

PAGE = 4096


class SortTask(NamedTuple):
    """One task: write the run of a split."""

    split: InputSplit
    run: Path
    settings: PrepareSettings


@dataclass(frozen=True)
class RunFacts:
    """The first line of a run. counts: sentences by what happened to them; pairs: candidates to hold out."""

    sentences: int
    counts: dict[str, int]
    pairs: list[holdout.Candidate]


RUN_FACTS = TypeAdapter(RunFacts)


class Run(NamedTuple):
    """A run on disk. high, low: (n,) uint64 hashes, ascending. ends: (n,) of each in text. times: (n,)."""

    facts: RunFacts
    high: np.ndarray
    low: np.ndarray
    ends: np.ndarray
    times: np.ndarray
    text: np.ndarray


def sort_split(task: SortTask) -> None:
    """Write the run of a split."""
    settings, counts = task.settings, Counter[str]()
    kept: dict[bytes, bytes] = {}
    repeated: Counter[bytes] = Counter()
    candidates = holdout.Candidates(settings.dev, settings.seed)
    for document in _clean(task.split, settings, counts):
        for sentence in document:
            data = sentence.encode()
            hashed = xxhash.xxh3_128_digest(data, settings.seed)
            if hashed in kept:
                repeated[hashed] += 1
            else:
                kept[hashed] = data
        if settings.dev:
            candidates.add(document)
    ordered = sorted(kept)  # bytes of a digest are big-endian: this is the order of the numbers
    facts = {"sentences": len(ordered), "counts": counts, "pairs": candidates.best()}
    hashes = np.frombuffer(b"".join(ordered), dtype=">u8").reshape(-1, 2)
    texts = [kept[hashed] for hashed in ordered]
    columns = [
        hashes[:, 0].astype("<u8"),
        hashes[:, 1].astype("<u8"),
        np.cumsum(list(map(len, texts)), dtype="<u8"),
        np.array([1 + repeated[hashed] if hashed in repeated else 1 for hashed in ordered], dtype="<u4"),
    ]
    head = json.dumps(facts).encode()
    head = head.ljust((len(head) // PAGE + 1) * PAGE - 1) + b"\n"
    atomic.write_file(task.run, b"".join([head, *(column.tobytes() for column in columns), *texts]))


def facts_of(path: Path) -> RunFacts:
    """The first line of a run."""
    with path.open("rb") as file:
        return RUN_FACTS.validate_json(file.readline())


def open_run(path: Path) -> Run:
    """A memory-mapped run: only the ranges that are used are read from disk."""
    with path.open("rb") as file:
        facts = RUN_FACTS.validate_json(file.readline())
        offset = file.tell()
    n, size = facts.sentences, path.stat().st_size
    if not n:
        empty = np.empty(0, dtype="<u8")
        return Run(facts, empty, empty, empty, empty, np.empty(0, dtype=np.uint8))

    def column(kind: str, start: int) -> np.ndarray:
        return np.memmap(path, dtype=kind, mode="r", offset=start, shape=(n,))

    text = np.memmap(path, dtype=np.uint8, mode="r", offset=offset + 28 * n, shape=(size - offset - 28 * n,))
    numbers = column("<u8", offset), column("<u8", offset + 8 * n), column("<u8", offset + 16 * n)
    return Run(facts, *numbers, column("<u4", offset + 24 * n), text)


def _clean(split: InputSplit, settings: PrepareSettings, counts: Counter[str]) -> Iterator[list[str]]:
    """Documents of normalised sentences that pass the filters; counts the others by reason."""
    bytes_range = settings.min_bytes, settings.max_bytes
    words_range = settings.min_words, settings.max_words
    split_document = documents.sentence_splitter(settings.language) if settings.split == "sentence" else None
    in_language = is_written_in(settings.keep_language) if settings.keep_language else None
    read = 0
    for document in documents.documents_of(split, settings.field, line_is_document=settings.dev > 0):
        sentences = split_document(document) if split_document else document
        read += len(sentences)
        kept = []
        for sentence in map(normalise, sentences):
            reason = drop_reason(sentence, bytes_range, words_range, settings.min_letters)
            if reason is None and in_language and not in_language(sentence):
                reason = "another language"
            if reason is None:
                kept.append(sentence)
            else:
                counts[reason] += 1
        yield kept
    counts["read"] += read
