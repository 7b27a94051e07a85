"""Parts: what one worker reads of a step, at its own places of the batch.

step t, places a .. b-1 of the batch  →  sentence ids (order.py)  →  text  →  tokens (or the prepared tokens)  →  crops (crops.py)
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from unsee_dist.config.sections import RunConfig
from unsee_dist.data.corpus.mix import Corpus
from unsee_dist.data.corpus.ragged import Ragged, ragged
from unsee_dist.data.corpus.tokens import Window
from unsee_dist.data.stream.crops import Crops
from unsee_dist.errors import ExitCode, exit_code_of, foreseen

POSITIONS = 1 << 14  # ids computed at once: 32 of them alone take 0.6 ms, all of them 4 ms
AHEAD = 1 << 20  # positions of all ranks among which those are


@dataclass(frozen=True)
class Part:
    """What a worker has read of a step. sentences: or both crops of each. damaged: see Batch; of the first part only."""

    step: int
    ids: np.ndarray
    sentences: Ragged
    damaged: int


class WorkerError(NamedTuple):
    """An error of a worker that is not a bug: a mistake of the user, or a passing fault."""

    message: str
    transient: bool


class Parts(Dataset[Part | WorkerError]):
    """Map from (step, part) to what a worker reads. Lives in the workers and keeps the blocks of its lanes.

    parts: the edges of each part, as places of the batch.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: PreTrainedTokenizerFast,
        config: RunConfig,
        rank: int,
        ranks: int,
    ) -> None:
        self.corpus, self.tokenizer, self.config = corpus, tokenizer, config
        self.batch = config.train.batch
        self.order = corpus.order(config.seed, self.batch)
        own = config.train.part(ranks)
        cuts = cut_slice(rank * own, (rank + 1) * own, config.data.workers or 1, self.order.edges())
        self.parts = list(pairwise(cuts))
        kept = max(self.order.open_blocks(*part) for part in self.parts)
        self.crops = Crops.of(config, tokenizer) if config.data.views == "crop" else None
        reader = corpus.tokens(tokenizer, config.read_tokens)
        self.tokens = Window(reader.read, kept) if reader else None
        self.texts = Texts(corpus, kept)
        self._computed: tuple[int, int, np.ndarray] = (0, 0, np.empty((0, 0), dtype=np.int64))

    def __getitem__(self, task: tuple[int, int]) -> Part | WorkerError:
        # A bug is raised: DataLoader adds the traceback of the worker to its message. Mistakes of the user and passing
        # faults are returned, without a traceback; as text, since an exception that is raised again in the main process
        # refers to the workers in a cycle, and ending them then takes 5 s each.
        try:
            return self._read(*task)
        except Exception as error:
            code = exit_code_of(error)
            if code is ExitCode.BUG:
                raise
            return WorkerError(str(foreseen(error) or error), code is ExitCode.TRANSIENT)

    def _read(self, step: int, part: int) -> Part:
        ids, damaged = self.ids(step, part)
        blocks, lines = self.corpus.find(ids)
        sentences = self.tokens.take(blocks, lines) if self.tokens else self._tokenise(blocks, lines)
        if self.crops:
            sentences = self.crops(step, ids, sentences)
        return Part(step, ids, sentences, damaged)

    def ids(self, step: int, part: int) -> tuple[np.ndarray, int]:
        """The ids of a part's sentences, and, of the first part, how many sentences of the whole step are replaced."""
        ids = self._ordered_ids(step, part)
        if self.corpus.on_damage == "stop":
            return ids, 0
        # The first worker of every rank checks the blocks of all ranks, once each: then all ranks have the same count
        # without communication.
        first, damaged = (step - 1) * self.batch, 0
        if part == 0:
            whole = self.order.ids(np.arange(first, first + self.batch))
            damaged = int((self._replace_damaged(whole) != whole).sum())
        return self._replace_damaged(ids), damaged

    def _ordered_ids(self, step: int, part: int) -> np.ndarray:
        """The ids of a part's places in a step; those of the next steps are computed with them."""
        of_part, first, ids = self._computed
        if of_part != part or not first <= step < first + len(ids):
            own = np.arange(*self.parts[part])
            # not more than an epoch: each epoch has an order of its own
            most = min(AHEAD, self.corpus.sentences) // self.batch
            steps = np.arange(step, step + max(1, min(POSITIONS // len(own), most)))
            ids = self.order.ids(((steps[:, None] - 1) * self.batch + own).ravel()).reshape(len(steps), -1)
            self._computed, first = (part, step, ids), step
        return ids[step - first]

    def _replace_damaged(self, ids: np.ndarray) -> np.ndarray:
        """The ids to read for these: those in damaged blocks become ids of their replacement blocks."""
        blocks, lines = self.corpus.find(ids)
        replaced = ids.copy()
        for block in np.unique(blocks).tolist():
            other = self.corpus.replacement_block(block)
            if other != block:
                chosen = blocks == block
                replaced[chosen] = self.corpus.first_id(other) + lines[chosen] % self.corpus.sizes[other]
        return replaced

    def _tokenise(self, blocks: np.ndarray, lines: np.ndarray) -> Ragged:
        """Token ids of these sentences, from their text."""
        return ragged(
            self.tokenizer(
                self.texts.take(blocks, lines),
                truncation=True,
                max_length=self.config.read_tokens,
                return_attention_mask=False,
                return_token_type_ids=False,
            )["input_ids"]
        )


class Texts:
    """The last blocks of text that were read. blocks: how many are kept."""

    def __init__(self, corpus: Corpus, blocks: int) -> None:
        self._corpus, self._limit = corpus, blocks
        self._blocks: OrderedDict[int, list[str]] = OrderedDict()

    def take(self, blocks: np.ndarray, lines: np.ndarray) -> list[str]:
        """These sentences, in this order."""
        needed = np.unique(blocks).tolist()
        for block in needed:
            if block in self._blocks:
                self._blocks.move_to_end(block)
        for block in needed:
            if block not in self._blocks:
                self._blocks[block] = self._corpus.read(block)
        while len(self._blocks) > max(self._limit, len(needed)):
            self._blocks.popitem(last=False)
        return [
            self._blocks[block][line] for block, line in zip(blocks.tolist(), lines.tolist(), strict=True)
        ]


def cut_slice(first: int, last: int, workers: int, edges: np.ndarray) -> list[int]:
    """Where the places first..last-1 are cut for so many workers: evenly, or at the nearest edges of lanes where each worker
    can have a lane."""
    number = min(workers, last - first)
    cuts = first + (last - first) * np.arange(number + 1) // number
    inside = edges[(edges > first) & (edges < last)]
    if number > 1 and len(inside) >= number - 1:
        nearest = np.abs(cuts[1:-1, None] - inside).argmin(axis=1)
        cuts[1:-1] = inside[nearest]
    return np.unique(cuts).tolist()
