"""Stream: the batch of step t, for any rank and any number of workers.

    step t, of G sentences:   positions (t-1)·G .. t·G-1  →  sentence ids (order.py)  →  rank r takes its slice of G/R
                              →  text  →  tokens (or the prepared tokens)  →  micro_batches

A batch is a pure function of (seed, corpus, G, t, r, R): workers only prefetch, no state is kept, and a run resumes
at step t by requesting step t.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import PreTrainedTokenizerFast

from unsee_dist.config.sections import RunConfig
from unsee_dist.data.corpus.mix import Corpus
from unsee_dist.data.corpus.ragged import Ragged, ragged
from unsee_dist.data.corpus.tokens import Window
from unsee_dist.data.processes import end_with_parent
from unsee_dist.data.stream.mask_keys import mask_keys
from unsee_dist.data.stream.packing import MicroBatch, pack
from unsee_dist.errors import ExitCode, TransientError, UserError, exit_code_of, foreseen

PREFETCH_STEPS = 4  # steps that each worker prefetches
POSITIONS = 1 << 14  # ids computed at once: 32 of them alone take 0.3 ms, all of them 2 ms


@dataclass(frozen=True)
class Batch:
    """This rank's part of one step. ids: global sentence ids, in the order of the micro_batches' sentences.

    damaged: sentences of the step, over all ranks, that were replaced (`data.on_damage: skip`); `ids` has the ids of
    the replacements.
    """

    step: int
    ids: tuple[int, ...]
    micro_batches: tuple[MicroBatch, ...]
    tokens: int  # without padding
    damaged: int = 0

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(
            self, micro_batches=tuple(micro_batch.to(device) for micro_batch in self.micro_batches)
        )

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; DataLoader calls this by name."""
        return replace(
            self, micro_batches=tuple(micro_batch.pin_memory() for micro_batch in self.micro_batches)
        )


class Stream:
    """Batches of one rank.

        config = load("unsee-vicreg", ["train.batch=64"])
        stream = Stream(Shards("corpus/"), tokenizer, config, rank=0, ranks=2)
        for batch in stream.batches(1, 1000):       # steps 1 to 1000, in order
            batch.micro_batches[0].input_ids               # (rows, T)

    It reads seed, train.batch, train.micro_batch, model.max_tokens, data.pack and data.workers; `data.pack: auto` packs (a
    run tries the encoder first and then writes true or false).

    Workers live as long as the stream and serve one `batches` at a time. Raises UserError for a batch that cannot be
    split and, while iterating, for a damaged block; TransientError for a store that does not answer.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: PreTrainedTokenizerFast,
        config: RunConfig,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        _check(corpus, tokenizer, config, ranks)
        self.corpus = corpus
        self._steps = _Steps()
        self._loader = DataLoader(
            _StepDataset(corpus, tokenizer, config, rank, ranks),
            batch_size=None,
            sampler=self._steps,
            num_workers=config.data.workers,
            worker_init_fn=_start_worker,
            pin_memory=torch.cuda.is_available(),
            **_worker_settings(config.data.workers),
        )

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """This rank's parts of steps first_step..last_step, both included; the first step of a run is 1."""
        assert first_step >= 1
        self._steps.steps = range(first_step, last_step + 1)
        for loaded in self._loader:
            if isinstance(loaded, WorkerError):
                raise TransientError(loaded.message) if loaded.transient else UserError(loaded.message)
            yield loaded

    def sample(self, n: int) -> list[str]:
        """The first n sentences of the corpus by id."""
        return self.corpus.head(n)


class _Steps(Sampler[int]):
    """The requested steps; they change between calls of `batches` while the workers stay."""

    steps = range(0)

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


class WorkerError(NamedTuple):
    """An error of a worker that is not a bug: a mistake of the user, or a passing fault."""

    message: str
    transient: bool


class _StepDataset(Dataset[Batch | WorkerError]):
    """Map from step to this rank's Batch. Lives in the workers and keeps the blocks of a window."""

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: PreTrainedTokenizerFast,
        config: RunConfig,
        rank: int,
        ranks: int,
    ) -> None:
        self.corpus, self.tokenizer, self.config = corpus, tokenizer, config
        self.per_rank = config.train.batch // ranks
        self.start = rank * self.per_rank
        self.order = corpus.order(config.seed)
        reader = corpus.tokens(tokenizer, config.model.max_tokens)
        self.tokens = Window(reader.read, corpus.window_blocks) if reader else None
        self.recent: OrderedDict[int, list[str]] = OrderedDict()
        self._pad = tokenizer.pad_token_id
        self._first, self._ids = 0, np.empty(0, dtype=np.int64)  # of the positions looked up last

    def __getitem__(self, step: int) -> Batch | WorkerError:
        # A bug is raised: DataLoader adds the traceback of the worker to its message. Mistakes of the user and passing
        # faults are returned, without a traceback; as text, since an exception that is raised again in the main process
        # refers to the workers in a cycle, and ending them then takes 5 s each.
        try:
            return self._batch(step)
        except Exception as error:
            code = exit_code_of(error)
            if code is ExitCode.BUG:
                raise
            return WorkerError(str(foreseen(error) or error), code is ExitCode.TRANSIENT)

    def _batch(self, step: int) -> Batch:
        ids, damaged = self.ids(step)
        blocks, lines = self.corpus.find(ids)
        sentences = self.tokens.take(blocks, lines) if self.tokens else self._tokenise(blocks, lines)
        size, share_rows = self.config.train.micro_batch or self.per_rank, self.config.data.pack is not False
        keys = mask_keys(self.config.seed, step, ids)
        micro_batches = tuple(
            pack(part, self.config.model.max_tokens, self._pad, share_rows, keys[start : start + size])
            for start, part in zip(range(0, len(ids), size), sentences.cut(size), strict=True)
        )
        return Batch(step, tuple(ids.tolist()), micro_batches, len(sentences.ids), damaged)

    def ids(self, step: int) -> tuple[np.ndarray, int]:
        """The ids of this rank's sentences, and how many sentences of the whole step are replaced."""
        first = (step - 1) * self.config.train.batch
        own = slice(self.start, self.start + self.per_rank)
        ids = self._ordered_ids(first, first + self.config.train.batch)
        if self.corpus.on_damage == "stop":
            return ids[own], 0
        # Every rank checks the blocks of all ranks, once each: then all have the same count without communication.
        replaced = self._replace_damaged(ids)
        return replaced[own], int((replaced != ids).sum())

    def _ordered_ids(self, first: int, last: int) -> np.ndarray:
        """The ids at positions first..last-1 of the order."""
        if not self._first <= first <= last <= self._first + len(self._ids):
            ahead = min(
                POSITIONS, self.corpus.sentences
            )  # not more than an epoch: each epoch has an order of its own
            self._first = first
            self._ids = self.order.ids(np.arange(first, max(last, first + ahead)))
        return self._ids[first - self._first : last - self._first]

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
                [
                    self._block(block)[line]
                    for block, line in zip(blocks.tolist(), lines.tolist(), strict=True)
                ],
                truncation=True,
                max_length=self.config.model.max_tokens,
                return_attention_mask=False,
                return_token_type_ids=False,
            )["input_ids"]
        )

    def _block(self, block: int) -> list[str]:
        """The sentences of a block. Each block of a window is read once."""
        if block not in self.recent:
            self.recent[block] = self.corpus.read(block)
            if len(self.recent) > self.corpus.window_blocks:
                self.recent.popitem(last=False)
        self.recent.move_to_end(block)
        return self.recent[block]


class WorkerSettings(TypedDict, total=False):
    """Arguments of DataLoader."""

    multiprocessing_context: BaseContext
    persistent_workers: bool
    prefetch_factor: int


def _worker_settings(workers: int) -> WorkerSettings:
    """How workers start. A fork is unsafe while gloo's threads run. The fork server is a clean process, which imports
    this module once for all workers (3 s each otherwise)."""
    if not workers:
        return {}
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return {"multiprocessing_context": context, "persistent_workers": True, "prefetch_factor": PREFETCH_STEPS}


def _start_worker(_: int) -> None:
    """One thread a worker: the ranks need the cores. A worker ends with its rank, also when the rank is killed."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    end_with_parent()


def _check(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, config: RunConfig, ranks: int) -> None:
    if config.train.batch % ranks:
        below = config.train.batch // ranks * ranks
        possible = f"{below} or {below + ranks}" if below else f"{ranks}"
        raise UserError(
            f"train.batch = {config.train.batch} cannot be split over {ranks} ranks. Use {possible}."
        )
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"the tokenizer {tokenizer.name_or_path!r} has no padding token. Use an encoder's tokenizer."
        )
    if config.train.batch > corpus.sentences:
        raise UserError(
            f"train.batch = {config.train.batch} is more than the {corpus.sentences} sentences of {corpus.path}. "
            f"Use at most {corpus.sentences}, or prepare a larger corpus."
        )
