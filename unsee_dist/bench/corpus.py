"""How fast a corpus is prepared and read: ours beside others, from the same sentences to the same padded tensors.

All run one after another, on one thread of this process; times are processor times, so that other work on the
machine does not count. Text goes through the encoder's own tokenizer; "ids" are sentences that were tokenised before.
A record of a peer is the bytes of a sentence, of its text or of its ids (uint16), in that peer's own format, shuffled
by that peer. mosaicml-streaming wants transformers below 5: `make bench` puts it and litdata into PEERS, a folder of
their own without their dependencies, which only this file imports from. A peer that cannot be imported is named, not
timed.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from unsee_dist.bench import corpus_peers
from unsee_dist.bench.reader import Reader
from unsee_dist.bench.table import BenchRow
from unsee_dist.config.sections import DataSettings, ModelSettings, RunConfig, TrainSettings
from unsee_dist.data import Shards, Stream, open_corpus
from unsee_dist.data.corpus.tokenise import publish, tokenise
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare
from unsee_dist.data.processes import worker_pool
from unsee_dist.model.encoder import load_tokenizer

if TYPE_CHECKING:
    from transformers import TokenizersBackend

    from unsee_dist.bench.reader import Records
    from unsee_dist.data import Batch

BATCH, MAX_TOKENS = 1024, 64
TEXT_SENTENCES = 1 << 15  # read by every reader that tokenises: 2 s
IDS_SENTENCES = 1 << 18  # and by every other, around the end of a small corpus


def read_and_prepare(config: RunConfig, scratch: Path, console: Console) -> dict[str, list[BenchRow]]:
    """Time preparation and every reader on the sentences of a run's corpus; print two tables."""
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(config.model.encoder)
    folder = scratch / "corpus"
    folder.mkdir()
    corpus = open_corpus(config.data.model_copy(update={"on_damage": "stop"}))
    lines = corpus.head(corpus.sentences)
    (folder / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    prepared = [{"preparation": name, "cpu_s": took} for name, took in _preparations(folder)]
    console.print(f"{len(lines):,} sentences; preparation, one process, processor seconds:")
    for row in prepared:
        console.print(f"  {row['preparation']:<30} {row['cpu_s']:.1f} s")
    ids = _tokenised(folder / "ours", tokenizer)
    texts = [line.encode() for line in lines]
    rows = []
    for reader in [*_ours(folder / "ours", tokenizer), *corpus_peers.readers(folder, texts, ids, console)]:
        most = IDS_SENTENCES if reader.ids else TEXT_SENTENCES
        speed = _speed(reader, tokenizer, most)
        rows.append({"reader": reader.name, "ids": reader.ids, "sentences_per_cpu_s": speed})
    console.print(_table(rows))
    return {"preparation": prepared, "readers": rows}


def _preparations(folder: Path) -> Iterator[tuple[str, float]]:
    text = str(folder / "text.txt")
    started = time.process_time()
    prepare([text], folder / "ours", PrepareSettings(), processes=1)
    yield "unsee prepare", time.process_time() - started
    started = time.process_time()
    corpus_peers.prepare_with_datasets(text, folder / "theirs")
    yield "datasets map, dedup, shuffle", time.process_time() - started


def _tokenised(corpus: Path, tokenizer: TokenizersBackend) -> list[bytes]:
    """Make the tokens of a corpus; the ids of its sentences as bytes."""
    with worker_pool(1) as work:
        tokenise(corpus, tokenizer, MAX_TOKENS, work)
    publish(corpus, tokenizer, MAX_TOKENS)
    shards = Shards(corpus)
    tokens = shards.tokens(tokenizer, MAX_TOKENS)
    assert tokens is not None
    rows: list[bytes] = []
    for block in range(len(shards.blocks)):
        ragged = tokens.read(block)
        ends = np.cumsum(ragged.lengths)
        rows += [row.astype("<u2").tobytes() for row in np.split(ragged.ids, ends[:-1])]
    return rows


def _ours(corpus: Path, tokenizer: TokenizersBackend) -> Iterator[Reader]:
    """Our stream, of text and of prepared tokens, padded and packed, in large and small batches."""
    text = corpus.with_name("ours-without-tokens")
    text.mkdir()
    for file in corpus.iterdir():
        if file.is_file():
            (text / file.name).symlink_to(file)
    for ids, folder in ((False, text), (True, corpus)):
        for batch, pack in ((BATCH, False), (BATCH, True), (32, True)):
            config = RunConfig(
                train=TrainSettings(batch=batch),
                model=ModelSettings(max_tokens=MAX_TOKENS),
                data=DataSettings(pack=pack, workers=0),
            )
            stream = Stream(Shards(folder), tokenizer, config)
            name = f"unsee_dist, {batch:,} {'packed' if pack else 'padded'}"
            yield Reader(name, ids, partial(stream.batches, 1, 1 << 40))


def _speed(reader: Reader, tokenizer: TokenizersBackend, sentences: int) -> float:
    """Sentences a second of one core, after the first batches; the reader starts again at its end."""

    def again() -> Generator[Batch | Records, None, None]:
        while True:
            yield from reader.batches()

    batches, read = again(), 0
    for batch in islice(batches, 3):
        _tensors(batch, reader.ids, tokenizer)
    started = time.process_time()
    for batch in batches:
        read += _tensors(batch, reader.ids, tokenizer)
        if read >= sentences:
            break
    took = time.process_time() - started
    batches.close()  # a thread that reads ahead ends before its folder is removed
    return read / took


def _tensors(batch: Batch | Records, ids: bool, tokenizer: TokenizersBackend) -> int:
    """Make padded tensors for an encoder. Returns the number of sentences."""
    if not isinstance(batch, list):
        return len(batch.ids)
    if not ids:
        texts = [text.decode() if isinstance(text, bytes) else text for text in batch]
        tokenizer(texts, truncation=True, max_length=MAX_TOKENS, padding="longest", return_tensors="pt")
        return len(batch)
    rows = [np.frombuffer(record, dtype="<u2") for record in batch if isinstance(record, bytes)]
    grid = np.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id, dtype=np.int64)
    mask = np.zeros_like(grid)
    for number, row in enumerate(rows):
        grid[number, : len(row)], mask[number, : len(row)] = row, 1
    torch.from_numpy(grid), torch.from_numpy(mask)
    return len(batch)


def _table(speeds: Sequence[BenchRow]) -> Table:
    table = Table("reader", title="sentences a second of one core, to token tensors", title_justify="left")
    for name in ("from", "sentences/s", "our padded is faster by"):
        table.add_column(name, justify="right")
    ours = {
        row["ids"]: row["sentences_per_cpu_s"] for row in reversed(speeds) if "1,024 padded" in row["reader"]
    }
    for row in speeds:
        speed = row["sentences_per_cpu_s"]
        table.add_row(
            row["reader"], "ids" if row["ids"] else "text", f"{speed:,.0f}", f"{ours[row['ids']] / speed:.2f}"
        )
    return table
