"""sentence-transformers' SimCSE on the shapes of gpu_step.py.

    python -m unsee_dist.bench.gpu_peer BATCHES CONFIG [key=value ...]      BATCHES: a JSON list; a JSON line for each

Its model, its MultipleNegativesRankingLoss on (s, s), bf16 autocast, AdamW and clipping as its Trainer sets them, on
the token ids of our batches, padded to the longest sentence. Its data loading, tokenising and logging are left out.
Two encodings of a sentence a step, where UNSEE has four.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unsee_dist.bench import synthetic
from unsee_dist.bench.kernels import as_row, profiled
from unsee_dist.bench.step import matrix_weights
from unsee_dist.bench.table import BenchRow
from unsee_dist.bench.timing import Effort, free_steps, measure_ceilings, peak_mib
from unsee_dist.config import RunConfig, load
from unsee_dist.data import Batch
from unsee_dist.distributed.process_group import join_world, leave_world
from unsee_dist.distributed.world import World
from unsee_dist.model.encoder import quiet_transformers
from unsee_dist.model.fresh import FreshSize, bert_config, train_tokenizer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

NAME = "sentence-transformers SimCSE bf16"


def measure(
    model: SentenceTransformer,
    config: RunConfig,
    vocabulary: int,
    world: World,
    ceiling: float,
    effort: Effort,
) -> BenchRow:
    """The row of one batch size; where memory runs out, a row with the sentence in `error`."""
    row: BenchRow = {"case": NAME, "batch": config.train.batch, "precision": "bf16"}
    if world.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        return row | _measured(model, config, vocabulary, world, ceiling, effort)
    except torch.OutOfMemoryError as error:
        return row | {"error": str(error).splitlines()[0]}


def _measured(
    model: SentenceTransformer,
    config: RunConfig,
    vocabulary: int,
    world: World,
    ceiling: float,
    effort: Effort,
) -> BenchRow:
    device = world.device
    padded = config.model_copy(update={"data": config.data.model_copy(update={"pack": False})})
    batches = [synthetic.batch(padded, vocabulary, number, world) for number in range(1, effort.batches + 1)]
    step = stepping(model, [features(each, device) for each in batches])
    for number in range(effort.warm_up):
        step(number)
    steps_s, hosts_s = free_steps(device, step, effort)
    peak = peak_mib(device)
    profile = profiled(device, lambda: step(0))
    tokens = statistics.fmean(batches[number % len(batches)].tokens for number in range(len(steps_s)))
    step_s = statistics.median(steps_s)
    useful = 2 * 2 * 3 * matrix_weights(model) * tokens  # two views, forward and twice that backward
    return {
        "steps": len(steps_s),
        "step_ms": 1000 * step_s,
        "slowest_ms": 1000 * max(steps_s),
        "tokens": tokens,
        "sentences_per_s": config.train.batch / step_s,
        "tokens_per_s": tokens / step_s,
        "padding": synthetic.padding(batches),
        "utilisation": useful / step_s / ceiling,
        "host_ms": 1000 * statistics.median(hosts_s),
        "peak_mib": peak,
        **as_row(profile),
    }


def features(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """What its tokenizer would give for the sentences of a padded batch, on the device."""
    (micro_batch,) = batch.to(device).micro_batches
    mask = (micro_batch.segment_ids >= 0).long()
    return {
        "input_ids": micro_batch.input_ids,
        "attention_mask": mask,
        "token_type_ids": torch.zeros_like(mask),
    }


def stepping(model: SentenceTransformer, batches: list[dict[str, Tensor]]) -> Callable[[int], float]:
    """A function that takes step `number` and returns the seconds that the host took to issue it."""
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    objective = MultipleNegativesRankingLoss(model)
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, lr=1e-5, fused=True)
    labels = torch.empty(0)  # the loss makes its own

    def step(number: int) -> float:
        started = time.perf_counter()
        inputs = batches[number % len(batches)]
        with torch.autocast(model.device.type, torch.bfloat16):
            loss = objective([dict(inputs), dict(inputs)], labels)  # copies: the model writes into them
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - started

    return step


def make_model(folder: Path, size: FreshSize, config: RunConfig, device: torch.device) -> SentenceTransformer:
    """A BERT with random weights as sentence-transformers loads it, in training mode. `folder` takes its files."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertModel

    with quiet_transformers():
        # the ids come from elsewhere; a folder without a tokenizer would not load
        train_tokenizer(["a sentence"], 64, size.max_tokens).save_pretrained(folder)
        BertModel(bert_config(size, synthetic.PAD), add_pooling_layer=False).save_pretrained(folder)
        words = Transformer(str(folder), max_seq_length=config.model.max_tokens)
        modules: list[Any] = [words, Pooling(size.width, config.model.pooling)]
        model = SentenceTransformer(modules=modules, device=str(device))
    return model.train()


def main(batches: str, config: str, *overrides: str) -> None:
    world = join_world()
    ceiling = measure_ceilings(world.device)["bf16"]
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder), synthetic.BERT_BASE, load(config, overrides), world.device)
    for batch in json.loads(batches):
        settings = load(config, [*overrides, f"train.batch={batch}", "train.micro_batch=null"])
        row = measure(model, settings, synthetic.BERT_BASE.vocabulary, world, ceiling, Effort())
        print(json.dumps(row), flush=True)
    leave_world()


if __name__ == "__main__":
    main(*sys.argv[1:])
