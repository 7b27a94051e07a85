"""The ranks of a run tokenise its corpus together, once, before the first step.

Every rank writes the tokens of every R-th shard beside the text, then all wait, then the first one publishes them.
A shard's tokens are written atomically, so a killed run leaves complete shards only. Runs that start at the same time
do not disturb each other: they write the same bytes, or into different folders (tokens.py).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from unsee_dist.data.corpus.mix import Mix
from unsee_dist.data.corpus.shards import Shards
from unsee_dist.data.corpus.tokenise import publish, tokenise
from unsee_dist.data.processes import worker_pool
from unsee_dist.distributed.shared_errors import share_errors
from unsee_dist.distributed.world import World, print_on_rank_0
from unsee_dist.errors import UserError, refusals
from unsee_dist.supervision.phases import enter_phase

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def tokenise_first(
    corpus: Shards | Mix, tokenizer: PreTrainedTokenizerFast, max_tokens: int, processes: int, world: World
) -> None:
    """Make the tokens of a corpus that has none for this tokenizer and length. Collective.

    Raises SharedUserError when they cannot be written, or when a block is damaged; with on_damage: skip a damaged
    corpus gets no tokens, and its text is tokenised while it is read.
    """
    parts = corpus.corpora if isinstance(corpus, Mix) else [corpus]
    with share_errors(world):
        for part in parts:
            if part.tokens(tokenizer, max_tokens) is None:
                print_on_rank_0(world, f"tokenising {part.path} once: {part.sentences:,} sentences")
                _tokenise_share(part, tokenizer, max_tokens, processes, world)
    with share_errors(world):
        for part in parts:
            if part.tokens(tokenizer, max_tokens) is None:
                assert isinstance(part.path, Path)
                publish(part.path, tokenizer, max_tokens)


def _tokenise_share(
    part: Shards, tokenizer: PreTrainedTokenizerFast, max_tokens: int, processes: int, world: World
) -> None:
    if not isinstance(part.path, Path):
        raise UserError(
            f"data.tokenise = true cannot write beside {part.path}. Use false, or run `unsee prepare --tokenizer` first."
        )
    share = world.rank, world.size

    def sentence(refused: OSError) -> str:
        return (
            f"data.tokenise = true, and tokens cannot be written into {part.path} ({refused.strerror}). "
            "Use false, or make room: finished shards are kept."
        )

    try:
        with refusals(sentence), worker_pool(processes) as run_tasks:
            tokenise(part.path, tokenizer, max_tokens, run_tasks, lambda _: enter_phase("tokenise"), share)
    except UserError as error:
        if part.on_damage == "stop":
            raise
        print(f"{error} This corpus is tokenised while it is read.", file=sys.stderr, flush=True)
