"""Whole training by us and by others: same encoder, sentences, batch, length and threads.

    python -m unsee_dist.bench.peers TRAINER PEER_PATH CONFIG [key=value ...]

unsee_dist                      this package's `train`, as configured (and in fp32)
sentence-transformers SimCSE    the trainer of sentence_trainer.py with our batch, rate and length: two encodings of a
                                sentence a step, where UNSEE has four
released code                   asparius/UNSEE's own `fit` and VICRegLoss with the configured number of projector
                                blocks, from a checkout; on a CPU it has fp32 only

The time of a step is the median distance between the beginnings of two steps: loading, update and logging are in it.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from torch import nn

from unsee_dist.bench.sentence_trainer import PEERS, make_loss, make_model, make_trainer
from unsee_dist.config import RunConfig, load
from unsee_dist.config.unused import under
from unsee_dist.data import Shards
from unsee_dist.errors import UserError

WARM_UP, STEPS = 4, 20

P = ParamSpec("P")
T = TypeVar("T")


def measure(trainer: str, peer: str, config: RunConfig) -> dict[str, float]:
    """Sentences a second and peak memory of one trainer."""
    if trainer == "released code fp32":
        marks = _released_code(config, Path(peer))
    elif trainer.startswith("sentence-transformers"):
        marks = _sentence_transformers(config, bf16=trainer.endswith("bf16"))
    else:
        marks = _ours(config)
    step_s = statistics.median(after - before for before, after in pairwise(marks[WARM_UP:]))
    return {
        "sentences_per_s": config.train.batch / step_s,
        "step_ms": 1000 * step_s,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _marked(function: Callable[P, T], marks: list[float]) -> Callable[P, T]:
    def marking(*args: P.args, **kwargs: P.kwargs) -> T:
        marks.append(time.perf_counter())
        return function(*args, **kwargs)

    return marking


def _ours(config: RunConfig) -> list[float]:
    from unsee_dist.run import train
    from unsee_dist.training import loop
    from unsee_dist.training.step import train_step

    marks: list[float] = []
    vars(loop)["train_step"] = _marked(train_step, marks)  # the name that the loop calls, in this process
    train(config)
    return marks


def _sentences(config: RunConfig) -> list[str]:
    return Shards(config.data.shards).head((WARM_UP + STEPS) * config.train.batch)


def _sentence_transformers(config: RunConfig, bf16: bool) -> list[float]:
    precision = config.parallel.model_copy(update={"precision": "bf16" if bf16 else "fp32"})
    config = config.model_copy(update={"parallel": precision})
    model = make_model(config, config.model.max_tokens)
    sentences = _sentences(config)
    marks: list[float] = []
    loss = make_loss("simcse", model)
    loss.forward = _marked(loss.forward, marks)
    with tempfile.TemporaryDirectory() as folder:
        data = PEERS["simcse"].columns(sentences)
        make_trainer(config, model, loss, data, folder, num_train_epochs=1, warmup_steps=0).train()
    return marks


def _released_code(config: RunConfig, peer: Path) -> list[float]:
    """Imports `sentence_transformers` from the checkout: never in one process with the real one."""
    import huggingface_hub

    if not (peer / "sentence_transformers" / "losses" / "VICRegLoss.py").is_file():
        raise UserError(f"--peer-unsee {peer} is not a checkout of asparius/UNSEE. Clone it there.")
    for name in ("HfFolder", "Repository", "cached_download"):  # it imports them, training does not use them
        if not hasattr(huggingface_hub, name):
            setattr(huggingface_hub, name, None)
    sys.path.insert(0, str(peer))
    from sentence_transformers import InputExample, SentenceTransformer, losses, models
    from torch.utils.data import DataLoader

    words = models.Transformer(config.model.encoder, max_seq_length=config.model.max_tokens)
    width = words.get_word_embedding_dimension()
    model = SentenceTransformer(modules=[words, models.Pooling(width)])
    loss: nn.Module = losses.VICRegLoss(
        model=model,
        sentence_embedding_dimension=width,
        hidden_embedding_dim=width * config.projector.width,
        num_mlp_layers=config.projector.blocks,
        moving_average_decay=config.target.decay,
    )
    marks: list[float] = []
    loss.forward = _marked(loss.forward, marks)
    examples: Any = [InputExample(texts=[sentence, sentence]) for sentence in _sentences(config)]
    loader: DataLoader[Any] = DataLoader(
        examples, shuffle=True, batch_size=config.train.batch, drop_last=True
    )
    fit: Any = model.fit
    fit(
        train_objectives=[(loader, loss)],
        warmup_steps=2,
        optimizer_params={"lr": config.train.lr},
        show_progress_bar=False,
        checkpoint_path=None,
    )
    return marks


def _main(trainer: str, peer: str, config: str, *overrides: str) -> None:
    more = [f"train.steps={WARM_UP + STEPS}", "evaluate.sts=null", "evaluate.retrieval=null"]
    more += [f"evaluate.every={WARM_UP + STEPS}", f"checkpoint.every={WARM_UP + STEPS}"]
    if trainer.endswith("fp32"):
        more.append("parallel.precision=fp32")
    with tempfile.TemporaryDirectory() as folder:
        settings = load(config, under([*more, f"run.dir={folder}/run"], overrides))
        result = measure(trainer, peer, settings)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
