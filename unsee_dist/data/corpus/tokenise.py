"""Tokenise a corpus, one shard a task. The files are described in tokens.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import xxhash

from unsee_dist.data.corpus.block_file import write_apart
from unsee_dist.data.corpus.blocks import BlockColumns
from unsee_dist.data.corpus.entries import LISTED
from unsee_dist.data.corpus.index import INDEX
from unsee_dist.data.corpus.shards import Shards
from unsee_dist.data.corpus.store import Store
from unsee_dist.data.corpus.tokens import (
    TokenShard,
    TokensIndex,
    digest,
    folder_of,
    open_tokens,
)
from unsee_dist.data.processes import TaskRunner
from unsee_dist.files import atomic
from unsee_dist.files.records import RecordFile

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Summary(NamedTuple):
    """Counts of a tokenised corpus. tokens: of all sentences, after the cut; cut: sentences that were cut."""

    sentences: int
    tokens: int
    cut: int

    def rows(self, max_tokens: int) -> dict[str, str]:
        """Rows for the report of a preparation."""
        share = self.cut / self.sentences
        return {
            "tokens a sentence": f"{self.tokens / self.sentences:.1f}",
            f"cut at {max_tokens} tokens": f"{self.cut:,} ({share:.1%})",
        }


class TokeniseTask(NamedTuple):
    """One task: a shard of a corpus into a file of tokens."""

    corpus: Path
    fingerprint: str
    shard: int
    tokenizer: PreTrainedTokenizerFast
    max_tokens: int
    out: Path


def tokenise(
    corpus: Path,
    tokenizer: PreTrainedTokenizerFast,
    max_tokens: int,
    run_tasks: TaskRunner,
    advance: Callable[[int], None] = lambda _: None,
    share: tuple[int, int] = (0, 1),
) -> None:
    """Tokenise the shards of a corpus in a folder; process r of R (share = (r, R)) tokenises every R-th shard.

    Finished shards are kept, so a killed run continues; `publish` makes them readable for `Stream`.
    advance(1) is called for each shard. Raises what reading a damaged shard raises, and OSError when writing fails.
    """
    out = _folder(corpus, tokenizer, max_tokens)
    if (out / INDEX).exists():
        return
    out.mkdir(exist_ok=True)
    shards = Shards(corpus)
    own_shards = range(share[0], len(shards.blocks.layout.names), share[1])
    tasks = (
        TokeniseTask(corpus.absolute(), shards.fingerprint, shard, tokenizer, max_tokens, out.absolute())
        for shard in own_shards
    )
    for _ in run_tasks(
        _tokenise_shard, (task for task in tasks if not (out / _entry(task.shard).name).exists())
    ):
        advance(1)


def publish(corpus: Path, tokenizer: PreTrainedTokenizerFast, max_tokens: int) -> Summary | None:
    """Write the index of the tokens; None while shards are missing. Several processes may call it at the same time."""
    shards, out = Shards(corpus), _folder(corpus, tokenizer, max_tokens)
    entries = [_entry(shard) for shard in range(len(shards.blocks.layout.names))]
    if not (out / INDEX).exists():
        try:
            done = write_apart((_complete(entry, out) for entry in entries), len(shards.blocks), out)
            index = TokensIndex(
                LISTED, shards.fingerprint, digest(tokenizer), max_tokens, _dtype(tokenizer), done
            )
            atomic.write_file(out / INDEX, index.to_json())
        except Incomplete:
            if not (out / INDEX).exists():  # otherwise another process has published it
                return None
    for entry in entries:
        (out / entry.name).unlink(missing_ok=True)
    done = open_tokens(Store(out), shards.fingerprint, shards.blocks).index.shards
    return Summary(shards.sentences, sum(shard.tokens for shard in done), sum(shard.cut for shard in done))


def _folder(corpus: Path, tokenizer: PreTrainedTokenizerFast, max_tokens: int) -> Path:
    return corpus / folder_of(digest(tokenizer), max_tokens)


@lru_cache(maxsize=1)
def _opened(corpus: Path, fingerprint: str) -> Shards:  # noqa: ARG001  (another corpus at that place is opened anew)
    """Once a process: to open a corpus of 38,000 shards takes a second, and a shard is a task."""
    return Shards(corpus, check=False)


def _tokenise_shard(task: TokeniseTask) -> None:
    """Write a shard's tokens, then its entry, which marks them as complete."""
    shards = _opened(task.corpus, task.fingerprint)
    backend = task.tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(task.max_tokens, direction=task.tokenizer.truncation_side)
    parts: list[bytes] = []
    blocks = BlockColumns([], [], [], [])
    offset, tokens, cut = 0, 0, 0
    for block in shards.blocks.of_shard(task.shard):
        encoded = backend.encode_batch(shards.read(block))
        ids = [encoding.ids for encoding in encoded]
        cut += sum(bool(encoding.overflowing) for encoding in encoded)
        lengths = np.array([len(sentence) for sentence in ids], dtype="<u2")
        flat = np.concatenate([np.array(sentence, dtype=_dtype(task.tokenizer)) for sentence in ids])
        data = lengths.tobytes() + flat.tobytes()
        blocks.offset.append(offset)
        blocks.length.append(len(data))
        blocks.xxh3.append(xxhash.xxh3_64_hexdigest(data))
        blocks.sentences.append(len(ids))
        parts.append(data)
        offset += len(data)
        tokens += int(lengths.sum())
    name = f"{Path(shards.blocks.layout.names[task.shard]).stem}.tokens"
    atomic.write_file(task.out / name, b"".join(parts))
    _entry(task.shard).write(task.out, TokenShard(name, tokens, cut, blocks))


class Incomplete(Exception):
    """A shard has no tokens yet."""


def _complete(entry: RecordFile[TokenShard], out: Path) -> TokenShard:
    shard = entry.read(out)
    if shard is None:
        raise Incomplete
    return shard


def _entry(shard: int) -> RecordFile[TokenShard]:
    """The file that marks a shard's tokens as complete, and holds its entry of the index."""
    remedy = "Delete it; the same command makes this shard's tokens again."
    return RecordFile(f"done-{shard:06d}.json", TokenShard, version=2, remedy=remedy)


def _dtype(tokenizer: PreTrainedTokenizerFast) -> Literal["<u2", "<u4"]:
    return "<u2" if len(tokenizer) <= 1 << 16 else "<u4"
