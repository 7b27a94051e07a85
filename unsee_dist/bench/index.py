"""The index of a corpus of 10^10 sentences: what it adds to the memory of a rank and of a worker, and the time to open it.

The corpus is made up: its index and its tokens' have the shards and blocks that `unsee prepare --tokenizer` makes by
default, its shards are sparse files of the right size. Rank and worker are processes of their own: a rank opens the corpus,
with every check, and the tokens, and looks up steps; a worker is sent what the stream sends it, and looks up the same
steps. Their peak of resident memory is compared with what they had before.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from unsee_dist.config.prepare import BLOCK_SENTENCES, PrepareSettings
from unsee_dist.data.corpus import tokens
from unsee_dist.data.corpus.block_file import write_apart
from unsee_dist.data.corpus.blocks import BlockColumns
from unsee_dist.data.corpus.entries import LISTED
from unsee_dist.data.corpus.index import INDEX, CorpusIndex, ShardEntry, fingerprint, sealed
from unsee_dist.data.corpus.order import Order
from unsee_dist.data.corpus.shards import Shards
from unsee_dist.data.corpus.store import Store

SENTENCES = 10**10
TEXT, TOKENS = 128 << 10, 64 << 10  # bytes of a block
INPUTS = 1000  # files that it was prepared from
BATCH, STEPS = 1024, 20


def index_cost(scratch: Path) -> dict[str, float]:
    """MB that a rank and a worker have more at their peak; seconds of the clock and of the processor to open the corpus."""
    scratch.mkdir()
    shards, blocks = _make(scratch, SENTENCES)
    return {"sentences": SENTENCES, "shards": shards, "blocks": blocks} | _measure(scratch)


def summary(cost: dict[str, float]) -> str:
    return (
        f"index of {cost['sentences']:.0e} sentences, {cost['shards']:,} shards, {cost['blocks']:,} blocks: a rank has "
        f"{cost['rank_mb']:.0f} MB more, a worker {cost['worker_mb']:.0f} MB; opening takes {cost['opening_s']:.2f} s "
        f"({cost['opening_cpu_s']:.2f} s of processor time)"
    )


def _make(folder: Path, sentences: int) -> tuple[int, int]:
    """Write the indexes and the sparse shards. Returns the number of shards and of blocks."""
    per_shard = PrepareSettings().shard_sentences
    counts = [min(per_shard, sentences - first) for first in range(0, sentences, per_shard)]
    blocks = -(-sentences // BLOCK_SENTENCES)
    text = write_apart(_entries(counts), blocks, folder)
    for entry in text:
        with (folder / entry.name).open("wb") as file:
            file.truncate(entry.bytes)
    corpus_digest = fingerprint(entry.sha256 for entry in text)
    inputs = [
        {"name": f"/data/text/part-{n:06d}.jsonl.gz", "bytes": n, "xxh3": f"{n:032x}"} for n in range(INPUTS)
    ]
    about: dict[str, object] = {"settings": PrepareSettings().model_dump(), "inputs": inputs}
    index = CorpusIndex(
        format=LISTED, fingerprint=corpus_digest, sentences=sentences, preparation=about, shards=text
    )
    (folder / INDEX).write_text(json.dumps(asdict(sealed(index)), indent=1), encoding="utf-8")
    place = folder / "tokens"
    place.mkdir()
    kept = write_apart(_token_entries(counts), blocks, place)
    token_index = tokens.TokensIndex(LISTED, corpus_digest, "", 64, "<u2", kept)
    (place / INDEX).write_bytes(token_index.to_json())
    return len(counts), blocks


def _columns(sentences: int, size: int) -> BlockColumns:
    """Of a shard whose blocks have `size` bytes each."""
    starts = range(0, sentences, BLOCK_SENTENCES)
    counts = [min(BLOCK_SENTENCES, sentences - start) for start in starts]
    offsets = [size * block for block in range(len(counts))]
    return BlockColumns(offsets, [size] * len(counts), [f"{n:016x}" for n in range(len(counts))], counts)


def _entries(counts: list[int]) -> Iterator[ShardEntry]:
    columns = {count: _columns(count, TEXT) for count in set(counts)}
    for number, count in enumerate(counts):
        size, sha256 = TEXT * len(columns[count].offset), hashlib.sha256(b"%d" % number).hexdigest()
        yield ShardEntry(f"shard-{number:06d}.tar", size, sha256, count, columns[count])


def _token_entries(counts: list[int]) -> Iterator[tokens.TokenShard]:
    columns = {count: _columns(count, TOKENS) for count in set(counts)}
    for number, count in enumerate(counts):
        ids = (TOKENS * len(columns[count].offset) - 2 * count) // 2
        yield tokens.TokenShard(f"shard-{number:06d}.tokens", ids, 0, columns[count])


def _measure(folder: Path) -> dict[str, float]:
    """In a process of its own, whose memory is that of nothing else."""
    command = [sys.executable, "-m", __name__, str(folder)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    memory: dict[str, float] = json.loads(printed)
    return memory


def _rank(folder: Path) -> dict[str, float]:
    before, started, started_cpu = _begin(), time.monotonic(), time.process_time()
    corpus = Shards(folder)
    took, took_cpu = time.monotonic() - started, time.process_time() - started_cpu
    reader = tokens.open_tokens(Store(folder / "tokens"), corpus.fingerprint, corpus.blocks)
    order = corpus.order(7, BATCH)
    _look_up(corpus, order, reader)
    rank_mb = (_status("VmHWM") - before) / 1e6
    ours, theirs = get_context("spawn").Pipe()
    worker = get_context("spawn").Process(target=_worker, args=(theirs,))
    worker.start()
    ours.send((corpus, order, reader))  # as a worker is sent its dataset
    worker_mb = ours.recv()
    worker.join()
    return {"rank_mb": rank_mb, "opening_s": took, "opening_cpu_s": took_cpu, "worker_mb": worker_mb}


def _worker(connection: Connection) -> None:
    before = _begin()
    _look_up(*connection.recv())
    connection.send((_status("VmHWM") - before) / 1e6)


def _look_up(corpus: Shards, order: Order, reader: tokens.Tokens) -> None:
    """What a process looks up to read the batches of some steps."""
    for first in np.linspace(0, corpus.sentences - BATCH, STEPS).astype(np.int64).tolist():
        blocks, _ = corpus.find(order.ids(np.arange(first, first + BATCH)))
        for block in np.unique(blocks).tolist():
            assert corpus.blocks[block].length == TEXT
            assert reader.blocks[block].length == TOKENS


def _begin() -> int:
    """Bytes of this process; the peak begins here."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _status(name: str) -> int:
    """Bytes, of this process."""
    (kib,) = re.findall(rf"{name}:\s*(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(kib) << 10


if __name__ == "__main__":
    print(json.dumps(_rank(Path(sys.argv[1]))))
