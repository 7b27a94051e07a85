"""sentence-transformers' own trainer, with each of its ways to train an encoder on sentences alone: what a user would do otherwise.

simcse         MultipleNegativesRankingLoss on (s, s)                          arXiv 2104.08821
tsdae          DenoisingAutoEncoderLoss on (s without 60% of its words, s)     arXiv 2104.06979
ct             ContrastiveTensionLossInBatchNegatives on s                     openreview.net/forum?id=Ov_sMNau-PF

The settings of each are those of its page and example in sentence-transformers' documentation (unsupervised_learning), in the
words of ours.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unsee_dist.config import RunConfig
from unsee_dist.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer

DELETED = 0.6  # of a sentence's words, for TSDAE
NEEDED = (
    "sentence_transformers",
    "datasets",
    "accelerate",
    "nltk",
)  # sentence-transformers[train], and TSDAE's words


@dataclass(frozen=True)
class Peer:
    """settings: what its documentation recommends, as those of a run. max_tokens: its longest sentence, where the run's is not
    shorter. constant: the learning rate neither rises nor falls. columns: a training set of sentences."""

    loss: str
    settings: tuple[str, ...]
    max_tokens: int
    columns: Callable[[list[str]], Dataset]
    constant: bool = False


def _pairs(sentences: list[str]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_dict({"anchor": sentences, "positive": sentences})


def _alone(sentences: list[str]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_dict({"sentence": sentences})


def _damaged(sentences: list[str]) -> Dataset:
    """Each sentence loses other words each time that it is read."""
    from datasets import Dataset

    def damage(rows: dict[str, list[str]]) -> dict[str, list[str]]:
        return {"noisy": [without_words(text) for text in rows["text"]], "text": rows["text"]}

    found = Dataset.from_dict({"text": sentences})
    found.set_transform(damage, columns=["text"])
    return found


def without_words(sentence: str) -> str:
    """The sentence without 60% of its words, and with at least one; as sentence-transformers' DenoisingAutoEncoderDataset."""
    from nltk import word_tokenize
    from nltk.tokenize.treebank import TreebankWordDetokenizer

    # preserve_line: it is one sentence already; to look for several, nltk downloads a model
    words = word_tokenize(sentence, preserve_line=True)
    if not words:
        return sentence
    kept = [word for word in words if random.random() > DELETED] or [random.choice(words)]
    return str(TreebankWordDetokenizer().detokenize(kept))


FALLING = (
    "train.warmup=0.1",
    "train.weight_decay=0.01",
    "train.clip=1.0",
)  # warmup over a tenth, then linear to 0
CONSTANT = ("train.warmup=0", "train.weight_decay=0", "train.clip=1.0")
_SIMCSE = ("train.batch=128", "train.lr=5e-5", *FALLING, "model.pooling=mean")
_TSDAE = ("train.batch=8", "train.lr=3e-5", *CONSTANT)
PEERS = {
    "simcse": Peer("MultipleNegativesRankingLoss", _SIMCSE, 32, _pairs),
    "tsdae": Peer("DenoisingAutoEncoderLoss", (*_TSDAE, "model.pooling=cls"), 75, _damaged, True),
    "tsdae-mean": Peer("DenoisingAutoEncoderLoss", (*_TSDAE, "model.pooling=mean"), 75, _damaged, True),
    "ct": Peer("ContrastiveTensionLossInBatchNegatives", _SIMCSE, 75, _alone),
}


def check_installed(what: str) -> None:
    """UserError: a package of the extra is missing. Before hours of training."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UserError(
            f'{what} needs {", ".join(missing)}, which is not installed. Write: pip install "unsee_dist[bench]"'
        )


def make_model(config: RunConfig, max_tokens: int) -> SentenceTransformer:
    """The run's encoder and pooling as sentence-transformers makes them."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    words = Transformer(config.model.encoder, max_seq_length=max_tokens)
    return SentenceTransformer(
        modules=[words, Pooling(words.get_word_embedding_dimension(), config.model.pooling)],
        device="cuda" if torch.cuda.is_available() else "cpu",
    )


def make_loss(name: str, model: SentenceTransformer) -> nn.Module:
    from sentence_transformers.sentence_transformer import losses

    loss: nn.Module = getattr(losses, PEERS[name].loss)(model)
    return loss


def make_trainer(
    config: RunConfig,
    model: SentenceTransformer,
    loss: nn.Module,
    data: Dataset,
    folder: str,
    *,
    callbacks: Sequence[Any] = (),
    **arguments: Any,
) -> SentenceTransformerTrainer:
    """Their trainer with the run's batch, rate, decay and clipping, quiet and without saves. arguments: of theirs."""
    from sentence_transformers import SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments

    train = config.train
    own: dict[str, Any] = {
        "output_dir": folder,
        "per_device_train_batch_size": train.batch,
        "learning_rate": train.lr,
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.clip or 0.0,
        "seed": config.seed % 2**32,
        "bf16": config.parallel.precision == "bf16",
        "fp16": config.parallel.precision == "fp16",
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_drop_last": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    trainer = SentenceTransformerTrainer(
        model, Arguments(**own | arguments), data, loss=loss, callbacks=list(callbacks)
    )
    for theirs in trainer.callback_handler.callbacks:
        if re.search("Printer|Progress", type(theirs).__name__):
            trainer.remove_callback(type(theirs))
    return trainer
