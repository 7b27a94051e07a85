"""Sort: a part of the inputs becomes a run (runs.py): its clean sentences, each once, sorted by keyed hash.

The hash is 128 bits of xxh3 of the sentence under the seed. Sorting by it shuffles, equal hashes are duplicates. `times`
is how often the part has the sentence, so that all duplicates are counted. A run depends on the part of the inputs and the
settings alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from pydantic import TypeAdapter

from unsee_dist.config.prepare import PrepareSettings
from unsee_dist.data.prepare import documents, holdout
from unsee_dist.data.prepare.bad_records import BAD_RECORD, MEMBERS, RECORD, BadRecords, Skipped
from unsee_dist.data.prepare.clean import drop_reason, is_record, normalise, words_in
from unsee_dist.data.prepare.documents import InputSplit
from unsee_dist.data.prepare.languages import is_written_in
from unsee_dist.data.prepare.runs import new_run, opened_run


class SortTask(NamedTuple):
    """One task: write the run of some splits."""

    splits: list[InputSplit]
    run: Path
    settings: PrepareSettings


@dataclass(frozen=True)
class RunFacts:
    """counts: sentences by what happened to them; pairs: candidates to hold out; bad: the first records that were skipped."""

    counts: dict[str, int]
    pairs: list[holdout.Candidate]
    bad: list[str]


RUN_FACTS = TypeAdapter(RunFacts)


def sort_splits(task: SortTask) -> None:
    """Write the run of some splits."""
    settings, counts, skipped = task.settings, Counter[str](), Skipped()
    kept: dict[bytes, bytes] = {}
    repeated: Counter[bytes] = Counter()
    candidates = holdout.Candidates(settings.dev, settings.seed)
    for split in task.splits:
        bad = BadRecords(settings.on_bad_record == "skip")
        for document in _clean(split, settings, counts, bad):
            for sentence in document:
                data = sentence.encode()
                hashed = xxhash.xxh3_128_digest(data, settings.seed)
                if hashed in kept:
                    repeated[hashed] += 1
                else:
                    kept[hashed] = data
            if settings.dev:
                candidates.add(document)
        skipped = skipped.with_more(split.skipped).with_more(bad.take())
    counts += Counter({"read": skipped.number, BAD_RECORD: skipped.number, MEMBERS: skipped.ignored})
    facts = RunFacts(dict(counts), candidates.best(), list(skipped.first))
    _write(task.run, kept, repeated, facts)


def facts_of(path: Path) -> RunFacts:
    """What was counted while a run was written."""
    with opened_run(path) as run:
        return RUN_FACTS.validate_json(run.facts())


def _write(path: Path, kept: dict[bytes, bytes], repeated: Counter[bytes], facts: RunFacts) -> None:
    """A run of sentences by their hashes."""
    hashes = np.frombuffer(b"".join(kept), dtype=">u8").reshape(-1, 2)  # the bytes of a digest are big-endian
    high, low = hashes[:, 0].astype("<u8"), hashes[:, 1].astype("<u8")
    times = np.array([1 + repeated[hashed] if hashed in repeated else 1 for hashed in kept], dtype="<u8")
    order = np.lexsort((low, high))
    texts = list(kept.values())
    with new_run(path) as run:
        run.add(high[order], low[order], times[order], [texts[place] for place in order.tolist()])
        run.finish(json.dumps(asdict(facts)).encode())


def _clean(
    split: InputSplit, settings: PrepareSettings, counts: Counter[str], bad: BadRecords
) -> Iterator[list[str]]:
    """Documents of normalised sentences that pass the filters; counts the others by reason."""
    bytes_range = settings.min_bytes, settings.max_bytes
    words_range = settings.min_words, settings.max_words
    split_document = documents.sentence_splitter(settings.language) if settings.split == "sentence" else None
    in_language = is_written_in(settings.keep_language) if settings.keep_language else None
    read = 0
    whole_lines = settings.dev > 0
    for document in documents.documents_of(split, settings.field, line_is_document=whole_lines, bad=bad):
        if split_document:
            texts = [
                text for text in document if not is_record(normalise(text))
            ]  # before it is cut into pieces
            if records := len(document) - len(texts):
                counts.update({"read": records, RECORD: records})
            sentences = split_document(texts)
        else:
            sentences = document
        read += len(sentences)
        kept = []
        for sentence in map(normalise, sentences):
            words = words_in(sentence)
            reason = drop_reason(sentence, bytes_range, words_range, settings.min_letters, words)
            if reason is None and in_language and not in_language(sentence):
                reason = "another language"
            if reason is None and is_record(sentence):
                reason = RECORD
            if reason is None:
                kept.append(sentence)
            else:
                counts[reason] += 1
        yield kept
    counts["read"] += read
