"""First use: the ranks of a run tokenise its corpus together, once, before their first step.

Every rank writes the tokens of every R-th shard beside the text, then all wait, then whoever is first publishes them.
A shard's tokens appear whole or not at all, so a killed run leaves work done, never something half. Runs that start
at once, or another prepared for another tokenizer or length, do not meet: same bytes, or another folder (tokens.py).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from unsee_dist.data.corpus.mix import Mix
from unsee_dist.data.corpus.shards import Shards
from unsee_dist.data.corpus.tokenise import publish, tokenise
from unsee_dist.data.processes import side_by_side
from unsee_dist.distributed.world import World, print_on_rank_0, together
from unsee_dist.errors import TransientError, UserError, file_error
from unsee_dist.supervision.phases import enter_phase


def tokenise_first(
    corpus: Shards | Mix, tokenizer: Any, max_tokens: int, processes: int, world: World
) -> None:
    """Make the tokens of a corpus that has none for this tokenizer and length. Collective.

    Raises SharedUserError, one sentence, where they cannot be written, or when a block is damaged; under
    on_damage: skip a damaged corpus stays without, and its text is tokenised as it is read.
    """
    parts = corpus.parts if isinstance(corpus, Mix) else [corpus]
    with together(world):
        for part in parts:
            if part.tokens(tokenizer, max_tokens) is None:
                print_on_rank_0(world, f"tokenising {part.path} once: {part.sentences:,} sentences")
                _my_share(part, tokenizer, max_tokens, processes, world)
    with together(world):
        for part in parts:
            if part.tokens(tokenizer, max_tokens) is None:
                assert isinstance(part.path, Path)
                publish(part.path, tokenizer, max_tokens)


def _my_share(part: Shards, tokenizer: Any, max_tokens: int, processes: int, world: World) -> None:
    if not isinstance(part.path, Path):
        raise UserError(
            f"data.tokenise = true cannot write beside {part.path}. Use false, or `unsee prepare --tokenizer` first."
        )
    share = world.rank, world.size
    try:
        with side_by_side(processes) as work:
            tokenise(part.path, tokenizer, max_tokens, work, lambda _: enter_phase("tokenise"), share)
    except TransientError:  # a sentence already, of a store that does not answer
        raise
    except OSError as error:
        raise file_error(
            f"data.tokenise = true, and tokens cannot be written into {part.path} ({error.strerror or error}). "
            "Use false, or make room; what is done is kept.",
            error,
        ) from error
    except UserError as error:
        if part.on_damage == "stop":
            raise
        print(f"{error} This corpus is tokenised as it is read.", file=sys.stderr, flush=True)
