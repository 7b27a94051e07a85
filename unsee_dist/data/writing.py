"""Writing: sentences to a shard's bytes, bytes to a disk that may fail at any instant."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import webdataset
import xxhash

BLOCK_SENTENCES = 1024


def shard(name: str, sentences: Sequence[str], first_block: int) -> tuple[bytes, dict[str, Any]]:
    """A shard's bytes and its entry in the index, both a function of the arguments alone.

    first_block: number of its first block in the corpus; a member is called after its block, so that keys are
    unique over the corpus for every reader. The last block's span takes in the end of the archive.
    """
    sink = io.BytesIO()
    writer = webdataset.TarWriter(sink, encoder=False, mtime=0)
    offsets, sizes = [], []
    for start in range(0, len(sentences), BLOCK_SENTENCES):
        block = sentences[start : start + BLOCK_SENTENCES]
        offsets.append(writer.tarstream.offset)
        sizes.append(len(block))
        key = f"{first_block + len(sizes) - 1:09d}"
        writer.write({"__key__": key, "txt": "\n".join(block).encode()})
    writer.close()
    data = sink.getvalue()
    ends = [*offsets[1:], len(data)]
    entry = {
        "name": name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "sentences": len(sentences),
        "blocks": {
            "offset": offsets,
            "length": [end - start for start, end in zip(offsets, ends, strict=True)],
            "xxh3": [
                xxhash.xxh3_64_hexdigest(data[start:end]) for start, end in zip(offsets, ends, strict=True)
            ],
            "sentences": sizes,
        },
    }
    return data, entry


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: temporary name, fsync, rename, fsync of the folder."""
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
