"""Prepare: text to shards, once. The same inputs and settings give the same bytes, on every machine.

    sentences → normal form, filters → exact dedup and seeded shuffle (one sort by keyed hash) → shards → index

Sorting by a keyed 128-bit hash is dedup and shuffle at once, needs no random generator, and does not depend on the
order of the inputs. `index.json` is written last: a folder with it is complete. Until then `preparing.json` marks
the folder as ours, so that a rerun may clear what an interrupted one left.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from unsee_dist.data import holdout, sources, writing
from unsee_dist.data.clean import drop_reason, normalise
from unsee_dist.data.index import FORMAT, INDEX, fingerprint, read_index
from unsee_dist.data.report import Report, report_of

PREPARING = "preparing.json"
DEV = "dev.tsv"


@dataclass(frozen=True)
class PrepareSettings:
    """seed: of the shuffle and of what is held out. field: of jsonl. Bytes and words: bounds of a kept sentence.

    shard_sentences: of a shard, in whole blocks. dev: pairs held out of training into dev.tsv (holdout.py).
    """

    seed: int = 0
    field: str = "text"
    min_bytes: int = 1
    max_bytes: int = 2000
    min_words: int = 3
    max_words: int = 200
    shard_sentences: int = 256 * writing.BLOCK_SENTENCES
    dev: int = 0

    def __post_init__(self) -> None:
        block = writing.BLOCK_SENTENCES
        if self.shard_sentences < block or self.shard_sentences % block:
            fits = max(block, round(self.shard_sentences / block) * block)
            raise ValueError(
                f"shard_sentences = {self.shard_sentences} is not whole blocks of {block}. Use {fits}."
            )
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"seed = {self.seed} does not fit 64 bits. Use 0 or a larger number.")
        if self.dev < 0:
            raise ValueError(f"dev = {self.dev} is not a number of pairs. Use 0 for none.")


def prepare(
    inputs: Sequence[str], out: str | Path, settings: PrepareSettings, console: Console | None = None
) -> Report:
    """Write the corpus of these inputs (files, or `installed-docs`) into the folder out.

    A folder that already holds it is left as it is, and reported. console: shows progress when it is a terminal.
    Raises ValueError, one sentence, for inputs that cannot be read, for a folder that holds something else, and
    when nothing is left to train on.
    """
    out, started = Path(out), time.monotonic()
    if not inputs:
        raise ValueError(f"no input was given. Name text files, or write {sources.INSTALLED_DOCS}.")
    plan: dict[str, Any] = {
        "settings": asdict(settings),
        "inputs": [sources.describe(name) for name in inputs],
    }
    if (out / INDEX).exists():
        return _already(out, plan)
    with _progress(console) as progress:
        passes = 2 if settings.dev else 1
        task = progress.add_task("preparing", total=passes * sum(i["bytes"] for i in plan["inputs"]))
        corpus = _Corpus(inputs, settings, lambda n: progress.advance(task, n))
        pairs = corpus.held_out()
        sentences = corpus.unique_shuffled({sentence for pair in pairs for sentence in pair.sentences})
        if not sentences:
            raise ValueError(
                f"no sentence is left of {corpus.counts['read']} read: {_reasons(corpus.counts)}."
            )
        try:
            _claim(out, plan)
            index = _write_corpus(out, sentences, pairs, plan, corpus.counts)
        except OSError as error:
            raise ValueError(
                f"{out} cannot be written ({error.strerror}). Make room or choose another --out, and run it again."
            ) from error
    return report_of(out, index, time.monotonic() - started)


class _Corpus:
    """The inputs, read as often as needed, with the count of what happened to their sentences."""

    def __init__(self, inputs: Sequence[str], settings: PrepareSettings, advance: sources.Advance) -> None:
        self.inputs, self.settings, self.advance = inputs, settings, advance
        self.counts: Counter[str] = Counter()

    def documents(self) -> Iterator[list[str]]:
        """Documents of normalised sentences that pass the filters."""
        self.counts.clear()
        settings = self.settings
        bytes_range = settings.min_bytes, settings.max_bytes
        words_range = settings.min_words, settings.max_words
        for document in sources.documents(self.inputs, settings.field, self.advance):
            kept = []
            for sentence in map(normalise, document):
                reason = drop_reason(sentence, bytes_range, words_range)
                if reason is None:
                    kept.append(sentence)
                else:
                    self.counts[reason] += 1
            self.counts["read"] += len(document)
            yield kept

    def held_out(self) -> list[holdout.Pair]:
        """The pairs kept out of training: a pass of its own."""
        if not self.settings.dev:
            return []
        return holdout.hold_out(self.documents(), self.settings.dev, self.settings.seed)

    def unique_shuffled(self, held: set[str]) -> list[str]:
        """Every other sentence once, in the order of its keyed hash.

        In memory: about 400 bytes a sentence. The seam for corpora beyond that: cut by the hash's first bits into
        files, then do this for each file in turn; the concatenation is the same list.
        """
        unique: dict[int, str] = {}
        for document in self.documents():
            for sentence in document:
                if sentence in held:
                    self.counts["held out"] += 1
                    continue
                rank = xxhash.xxh3_128_intdigest(sentence.encode(), seed=self.settings.seed)
                if rank in unique:
                    self.counts["duplicate"] += 1
                else:
                    unique[rank] = sentence
        return [unique[rank] for rank in sorted(unique)]


def _claim(out: Path, plan: dict[str, Any]) -> None:
    """Make the folder ours, clearing what our own interrupted run left."""
    out.mkdir(parents=True, exist_ok=True)
    entries = list(out.iterdir())
    if entries and not (out / PREPARING).exists():
        raise ValueError(f"{out} is not empty and no corpus of `unsee prepare`. Choose another --out.")
    for entry in entries:
        if entry.name != PREPARING:
            entry.unlink()
    writing.write(out / PREPARING, _json(plan))


def _write_corpus(
    out: Path, sentences: list[str], pairs: Iterable[holdout.Pair], plan: dict[str, Any], counts: Counter[str]
) -> dict[str, Any]:
    size = plan["settings"]["shard_sentences"]
    shards = []
    for number, start in enumerate(range(0, len(sentences), size)):
        name = f"shard-{number:06d}.tar"
        part = sentences[start : start + size]
        data, entry = writing.shard(name, part, start // writing.BLOCK_SENTENCES)
        writing.write(out / name, data)
        shards.append(entry)
    dev = list(pairs)
    if dev:
        writing.write(out / DEV, holdout.table(dev))
    index = {
        "format": FORMAT,
        "fingerprint": fingerprint(entry["sha256"] for entry in shards),
        "sentences": len(sentences),
        "dev": len(dev),
        "preparation": plan | {"counters": dict(sorted(counts.items()))},
        "shards": shards,
    }
    writing.write(out / INDEX, _json(index))
    (out / PREPARING).unlink()
    return index


def _already(out: Path, plan: dict[str, Any]) -> Report:
    """The report of a finished corpus, if it is the one asked for."""
    index = read_index(out)
    there = index["preparation"]
    settings = plan["settings"]
    differ = [f"{k} = {there['settings'].get(k)} there, {settings[k]} here" for k in settings
              if there["settings"].get(k) != settings[k]]  # fmt: skip
    if there["inputs"] != plan["inputs"]:
        differ.append(f"made of {_names(there['inputs'])} there, of {_names(plan['inputs'])} here")
    if differ:
        raise ValueError(
            f"{out} already holds another corpus: {'; '.join(differ)}. Choose another --out, or delete {out}."
        )
    (out / PREPARING).unlink(missing_ok=True)
    return report_of(out, index, None)


def _progress(console: Console | None) -> Progress:
    shown = console is not None and console.is_terminal
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, disable=not shown, transient=True)


def _reasons(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {why}" for why, n in sorted(counts.items()) if why != "read") or "nothing was read"


def _names(inputs: list[dict[str, Any]]) -> str:
    return ", ".join(f"{i['name']} ({i['bytes']:,} bytes, {i['xxh3'][:8]})" for i in inputs)


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
