"""Stream: the batch of step t, for any rank and any number of workers.

    step t, of G sentences:   positions (t-1)·G .. t·G-1  →  rank r takes its slice of G/R, each of its workers a part (parts.py)
                              →  sentence ids (order.py)  →  text  →  tokens (or the prepared tokens)  →  crops (crops.py)
                              →  the parts of all workers  →  micro_batches

A batch is a pure function of (seed, corpus, G, t, r, R): workers only prefetch, no state is kept, and a run resumes
at step t by requesting step t. A worker serves the same places of every batch, so that it reads its own lanes of the
corpus (lanes.py) and no other worker reads them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from multiprocessing.context import BaseContext
from typing import TypedDict

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedTokenizerFast

from unsee_dist.config.sections import LEAST_BATCH, RunConfig
from unsee_dist.data.corpus.mix import Corpus
from unsee_dist.data.corpus.ragged import joined
from unsee_dist.data.processes import WorkerContext, end_with_parent
from unsee_dist.data.stream.crops import beginnings, check_records
from unsee_dist.data.stream.mask_keys import mask_keys
from unsee_dist.data.stream.packing import MicroBatch, pack
from unsee_dist.data.stream.parts import Part, Parts, WorkerError
from unsee_dist.errors import OF_A_KILLED_WORKER, TransientError, UserError

PREFETCH_STEPS = 4  # times the workers: steps that all of them prefetch


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

    It reads seed, train.batch, train.micro_batch, model.max_tokens, data.pack, data.workers, data.views and parallel.compile
    (rows come in few numbers); `data.pack: auto` packs (a run tries the encoder first and then writes true or false).

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
        check_stream(corpus, tokenizer, config, ranks)
        self.corpus, self.config = corpus, config
        dataset = Parts(corpus, tokenizer, config, rank, ranks)
        self._tasks, self._pad = _Tasks(len(dataset.parts)), tokenizer.pad_token_id
        self._following: Future[Batch | None] | None = None
        workers = len(dataset.parts) if config.data.workers else 0
        self._loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=self._tasks,
            num_workers=workers,
            worker_init_fn=_start_worker,
            **_worker_settings(workers),
        )

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """This rank's parts of steps first_step..last_step, both included; the first step of a run is 1."""
        assert first_step >= 1
        if self._following:
            wait([self._following])  # of an iteration that was left: it still reads from the workers
            self._following = None
        self._tasks.steps = range(first_step, last_step + 1)
        parts = _of_workers(iter(self._loader)) if self._loader.num_workers else iter(self._loader)
        ready = map(self._assemble, zip(*[parts] * self._tasks.parts, strict=True))
        if not self._loader.num_workers:
            yield from ready
            return
        self._following = _in_a_thread(ready)
        while (batch := self._take_following()) is not None:
            self._following = _in_a_thread(ready)
            yield batch

    def _take_following(self) -> Batch | None:
        assert self._following
        try:
            return self._following.result()
        finally:
            self._following = None  # an error that refers to the workers in a cycle would keep them alive

    def _assemble(self, received: Sequence[Part | WorkerError]) -> Batch:
        """The batch of all parts. Packed here, together: rows must not depend on the number of workers."""
        parts = [_unwrapped(each) for each in received]
        ids, sentences = (
            np.concatenate([part.ids for part in parts]),
            joined(part.sentences for part in parts),
        )
        step = parts[0].step
        size, share_rows = self.config.train.micro_batch or len(ids), self.config.data.pack is not False
        keys, views = mask_keys(self.config.seed, step, ids), len(sentences.lengths) // len(ids)
        row_tokens, few_shapes = self.config.model.max_tokens, self.config.parallel.compile
        micro_batches = tuple(
            pack(part, row_tokens, self._pad, share_rows, keys[start : start + size], few_shapes, views)
            for start, part in zip(range(0, len(ids), size), sentences.cut(views * size), strict=True)
        )
        tokens = len(sentences.ids) // views
        batch = Batch(step, tuple(ids.tolist()), micro_batches, tokens, parts[0].damaged)
        return batch.pin_memory() if torch.cuda.is_available() else batch

    def sample(self, n: int) -> list[str]:
        """The first n sentences of the corpus by id, or the beginnings of the records that are cropped."""
        return beginnings(self.corpus.head(n), self.config)


class _Tasks(Sampler[tuple[int, int]]):
    """(step, part) of the requested steps; these change between calls of `batches` while the workers stay. DataLoader gives
    them to its workers in turn: with as many workers as parts, each serves one part."""

    def __init__(self, parts: int) -> None:
        self.parts, self.steps = parts, range(0)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((step, part) for step in self.steps for part in range(self.parts))

    def __len__(self) -> int:
        return len(self.steps) * self.parts


def _unwrapped(received: Part | WorkerError) -> Part:
    if isinstance(received, WorkerError):
        raise TransientError(received.message) if received.transient else UserError(received.message)
    return received


def _of_workers(parts: Iterator[Part | WorkerError]) -> Iterator[Part | WorkerError]:
    """What the workers of a DataLoader send. ChildProcessError: one of them was killed. One that ended by itself is a bug."""
    try:
        yield from parts
    except RuntimeError as error:
        codes = [worker.exitcode for worker in parts._workers]  # type: ignore[attr-defined]  # torch's iterator has them
        if -signal.SIGKILL in codes:
            raise ChildProcessError(OF_A_KILLED_WORKER) from error
        if "exited unexpectedly" in str(error):
            error.add_note(f"exit codes of data.workers: {codes}")
        raise


def _in_a_thread(ready: Iterator[Batch]) -> Future[Batch | None]:
    """The next batch, assembled while the last one is trained on: a GPU does not wait for 4 ms of packing 1,024 sentences.
    A daemon, so that no worker that hangs keeps this process from ending."""
    future: Future[Batch | None] = Future()

    def assemble() -> None:
        try:
            future.set_result(next(ready, None))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=assemble, name="next batch", daemon=True).start()
    return future


class WorkerSettings(TypedDict, total=False):
    """Arguments of DataLoader."""

    multiprocessing_context: BaseContext
    persistent_workers: bool
    prefetch_factor: int


def _worker_settings(workers: int) -> WorkerSettings:
    """How workers start. The fork server imports this module once for all of them (3 s each otherwise)."""
    if not workers:
        return {}
    return {
        "multiprocessing_context": WorkerContext(__name__),
        "persistent_workers": True,
        "prefetch_factor": PREFETCH_STEPS * workers,  # parts of a step
    }


def _start_worker(_: int) -> None:
    """One thread a worker: the ranks need the cores. A worker ends with its rank, also when the rank is killed."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    end_with_parent()


def check_stream(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, config: RunConfig, ranks: int) -> None:
    """UserError: no batch of these settings can be made of this corpus with this tokenizer."""
    config.train.part(ranks)
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"the tokenizer {tokenizer.name_or_path!r} has no padding token. Use an encoder's tokenizer."
        )
    if config.train.batch > corpus.sentences:
        largest = corpus.sentences // ranks * ranks
        instead = f"Use at most {largest}, or prepare" if largest >= LEAST_BATCH else "Prepare"
        raise UserError(
            f"train.batch = {config.train.batch} is more than the {corpus.sentences} sentences of {corpus.path}. "
            f"{instead} a larger corpus."
        )
    if config.data.views == "crop":
        check_records(corpus, tokenizer, config)
