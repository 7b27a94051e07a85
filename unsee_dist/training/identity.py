"""The identity of a run: its settings of the kind "part of the result", and digests of what its other settings name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from unsee_dist.config.kinds import Kind, flat, of_kind
from unsee_dist.config.sections import RunConfig
from unsee_dist.data.corpus import order
from unsee_dist.data.corpus.tokens import digest as tokenizer_digest
from unsee_dist.metrics.retrieval import Questions
from unsee_dist.metrics.sts import Pairs
from unsee_dist.training.checkpoint.manifest import Identity

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SHOWN = 12  # digits of a digest


def identity_of(
    config: RunConfig,
    encoder: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    fingerprint: str,
    sts: Mapping[str, Pairs],
    retrieval: Mapping[str, Questions],
) -> Identity:
    """Of a run whose encoder is not trained yet. fingerprint: of the corpus. Names of files are not part of it."""
    pairs = [(each.first, each.second, each.scores) for each in sts.values()]
    questions = [(each.queries, each.answers, each.own) for each in retrieval.values()]
    return Identity(
        settings=of_kind(flat(config), Kind.RESULT),
        encoder=describe_encoder(encoder),
        tokenizer=f"{len(tokenizer)} pieces, {tokenizer_digest(tokenizer)[:SHOWN]}",
        corpus=fingerprint,
        sts=describe_sets(pairs, "pairs"),
        retrieval=describe_sets(questions, "questions"),
        order=f"order of sentences, version {order.VERSION}",
    )


def describe_encoder(encoder: PreTrainedModel) -> str:
    """Its shape, and a digest of its weights."""
    shape, digest = encoder.config, xxhash.xxh3_128()
    for name, weight in sorted(encoder.named_parameters()):
        digest.update(name.encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().data)
    layers = getattr(shape, "num_hidden_layers", getattr(shape, "n_layers", None))
    return f"{shape.model_type}, {layers} layers of {shape.hidden_size}, {digest.hexdigest()[:SHOWN]}"


def describe_sets(sets: Iterable[tuple[list[str], list[str], np.ndarray]], what: str) -> str:
    """How many rows in how many sets, and a digest of their texts and numbers; "absent" without a set."""
    digests, rows = [], 0
    for first, second, numbers in sets:
        digest = xxhash.xxh3_128()
        for text in (*first, "", *second):
            digest.update(f"{len(text)} {text}".encode("utf-8", "surrogatepass"))
        digest.update(np.ascontiguousarray(numbers, dtype=np.float64).data)
        digests.append(digest.hexdigest())
        rows += len(numbers)
    of_all = xxhash.xxh3_128_hexdigest(" ".join(sorted(digests)).encode())
    return f"{rows} {what}, {of_all[:SHOWN]}" if digests else "absent"
