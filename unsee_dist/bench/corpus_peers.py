"""Other readers of the sentences that bench/corpus.py times: each writes them in its own format and reads that back."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from unsee_dist.bench.reader import Reader

PEERS = Path(sys.prefix) / "bench-peers"  # see Makefile
BATCH = 1024
BUFFER = 10_000  # sentences that a shuffling buffer holds


def readers(folder: Path, texts: list[bytes], ids: list[bytes], console: Console) -> Iterator[Reader]:
    """Every peer that can be imported, on texts and on ids; webdataset on our own blocks besides."""
    from unsee_dist.bench.reader import Reader

    if str(PEERS) not in sys.path:
        sys.path.append(str(PEERS))  # after our own packages, which win
    yield Reader("webdataset on our blocks", False, lambda: _our_blocks(folder / "ours"))
    peers: dict[str, Callable[[Path, list[bytes]], Callable[[], Iterable[list[bytes]]]]] = {
        "webdataset, a sentence a member": _webdataset,
        "datasets streaming": _datasets,
        "mosaicml-streaming": _mosaic,
        "litdata": _litdata,
    }
    for name, peer in peers.items():
        for number, records in enumerate((texts, ids)):
            place = folder / f"{name.split(',')[0]}-{number}"
            place.mkdir()
            try:
                yield Reader(name, bool(number), peer(place, records))
            except ImportError as error:
                console.print(f"{name} is not timed: {error}", markup=False)
                break


def prepare_with_datasets(text: str, out: Path) -> None:
    """What `unsee prepare` does, by datasets: normalise, filter, dedup, shuffle, write."""
    import datasets

    from unsee_dist.data.prepare.clean import drop_reason, normalise

    datasets.disable_progress_bars()
    dataset = datasets.load_dataset("text", data_files=text, split="train", cache_dir=str(out / "cache"))
    dataset = dataset.map(lambda batch: {"text": [normalise(line) for line in batch["text"]]}, batched=True)
    seen: set[str] = set()

    def new(line: str) -> bool:
        if drop_reason(line, (1, 2000), (3, 200)) or line in seen:
            return False
        seen.add(line)
        return True

    dataset = dataset.filter(lambda batch: [new(line) for line in batch["text"]], batched=True)
    dataset.shuffle(seed=0).flatten_indices().save_to_disk(str(out / "done"))


def _our_blocks(corpus: Path) -> Iterator[list[str]]:
    import webdataset

    shards = sorted(str(path) for path in corpus.glob("shard-*.tar"))
    for sample in webdataset.WebDataset(shards, shardshuffle=False):
        lines = sample["txt"].decode().split("\n")
        random.shuffle(lines)
        yield lines


def _webdataset(folder: Path, records: list[bytes]) -> Callable[[], Iterable[list[bytes]]]:
    import webdataset

    with webdataset.TarWriter(str(folder / "all.tar"), encoder=False, mtime=0) as tar:
        for number, record in enumerate(records):
            tar.write({"__key__": f"{number:09d}", "bin": record})

    def read() -> Iterator[list[bytes]]:
        samples = webdataset.WebDataset([str(folder / "all.tar")], shardshuffle=False).shuffle(BUFFER)
        yield from _grouped(sample["bin"] for sample in samples)

    return read


def _datasets(folder: Path, records: list[bytes]) -> Callable[[], Iterable[list[bytes]]]:
    import datasets
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(
        pyarrow.table({"record": records}), folder / "all.parquet", row_group_size=BATCH
    )
    files = str(folder / "all.parquet")
    dataset = datasets.load_dataset(
        "parquet", data_files=files, split="train", streaming=True, cache_dir=str(folder)
    )
    shuffled = dataset.shuffle(seed=0, buffer_size=BUFFER)
    return lambda: (batch["record"] for batch in shuffled.iter(BATCH))


def _mosaic(folder: Path, records: list[bytes]) -> Callable[[], Iterable[list[bytes]]]:
    # not timed, imported with the rest, and torchvision must have been built for this very torch
    sys.modules.setdefault("streaming.vision", ModuleType("streaming.vision"))
    from streaming import MDSWriter, StreamingDataset

    with MDSWriter(out=str(folder), columns={"record": "bytes"}) as writer:
        for record in records:
            writer.write({"record": record})
    dataset = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH)

    def read() -> Iterator[list[bytes]]:
        try:
            yield from _grouped(sample["record"] for sample in dataset)
        finally:
            dataset._iterator.exit()  # its threads would go on reading ahead

    return read


def _litdata(folder: Path, records: list[bytes]) -> Callable[[], Iterable[list[bytes]]]:
    from litdata import StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_bytes="64MB")
    for number, record in enumerate(records):
        writer.add_item(number, record)
    writer.done()
    writer.merge()
    dataset = StreamingDataset(str(folder), shuffle=True)
    return lambda: _grouped(bytes(record) for record in dataset)


def _grouped(records: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Batches; the last one too."""
    held: list[bytes] = []
    for record in records:
        held.append(record)
        if len(held) == BATCH:
            yield held
            held = []
    if held:
        yield held
