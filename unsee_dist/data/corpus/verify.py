"""Verify: every byte of a corpus, and of all tokens beside it, against the checksums and counts of their indexes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unsee_dist.data.corpus.shards import Shards
from unsee_dist.data.corpus.store import Refused, Store
from unsee_dist.data.corpus.tokens import FOLDERS, Tokens, open_tokens
from unsee_dist.errors import UserError


def verify(corpus: str | Path) -> list[str]:
    """What is whole, a line each. UserError: a line for every damaged block, or a file that may not
    be read."""
    shards = Shards(corpus, on_damage="skip", setting="DIR")
    damage = _of_blocks(shards.read, len(shards.blocks))
    whole = [f"{corpus} is whole: {shards.sentences:,} sentences in {len(shards.blocks):,} blocks verified"]
    # of a corpus at a URL, where no folder can be listed, the tokens are checked when they are read
    for folder in [] if shards.store.remote else sorted(Path(corpus).glob(FOLDERS)):
        wrong = _of_tokens(folder, shards)
        damage += wrong
        whole += [] if wrong else [f"{folder} is whole: the tokens of these sentences"]
    if damage:
        raise UserError("\n".join(damage))
    Shards(corpus)  # the shards' sizes too: bytes after the last block
    return whole


def _of_tokens(folder: Path, shards: Shards) -> list[str]:
    try:
        tokens = open_tokens(Store(folder), shards.fingerprint, shards.blocks)
    except FileNotFoundError:  # never finished, so nobody reads them
        return []
    except Refused:
        raise
    except UserError as error:
        return [str(error)]
    return _of_blocks(tokens.read, len(shards.blocks)) + _behind_the_last(folder, tokens)


def _behind_the_last(folder: Path, tokens: Tokens) -> list[str]:
    """The files that have more bytes than their blocks."""
    wrong = []
    for name, size in zip(tokens.blocks.layout.names, tokens.blocks.layout.bytes.tolist(), strict=True):
        path = folder / name
        if path.is_file() and path.stat().st_size > size:
            wrong.append(f"{path} is damaged: it should have {size} bytes, found {path.stat().st_size}.")
    return wrong


def _of_blocks(read: Callable[[int], object], blocks: int) -> list[str]:
    damage = []
    for block in range(blocks):
        try:
            read(block)
        except Refused:  # nobody knows whether it is damaged
            raise
        except UserError as error:
            damage.append(str(error))
    return damage
