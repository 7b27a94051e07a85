"""The names of the numbers in metrics.jsonl, what each is, and which of them decides.

A training line has the names of TRAINING; every other name in it is a weighted term of the objective. An evaluation
line has names that begin with DEV; those of EVALUATION, and of several sets each with /NAME.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

DEV = "dev/"

TRAINING = {
    "step": "batches read, from 1",
    "time": "seconds since 1970 when the line was written",
    "loss": "global loss, all its terms, both directions",
    "lr": "learning rate of the step",
    "decay": "share of the target kept",
    "grad_norm": "norm of the global gradient before clipping",
    "distance": "|online - target| / |online| over all followed weights",
    "sentences": "sentences read so far, over all ranks",
    "sentences_per_s": "sentences a second over all ranks, waiting included",
    "tokens_per_s": "tokens a second over all ranks, padding left out",
    "wait": "share of the step spent waiting for data",
    "skipped": "steps so far whose loss or gradient was not finite",
    "damaged": "sentences of the step that others stand in for",
}

EVALUATION = {
    "dev/sts": "Spearman x 100 on evaluate.sts, mean of the sets",
    "dev/mrr": "mean reciprocal rank on evaluate.retrieval, 0 to 1",
    "dev/recall_at_1": "share of queries whose answer comes first",
    "dev/candidates": "answers each query chooses from",
    "dev/alignment": "mean squared distance of pairs that mean the same",
    "dev/uniformity": "log mean exp(-2 distance squared) of sentences of the corpus",
    "dev/effective_rank": "RankMe of centred unit vectors, 1 to the width",
    "dev/std": "mean deviation of a dimension, 1 = isotropic",
    "dev/std_min": "smallest deviation of a dimension, 0 = a dead one",
    "dev/correlation": "root mean square correlation of two dimensions",
    "dev/mean_cosine": "mean cosine of two different sentences",
    "dev/spectrum": "share of the k largest eigenvalue, as dev/spectrum/k",
    "dev/collapsed": "1 when all embeddings are one point or not finite",
    "dev/distance": "as distance, at the evaluation",
    "dev/best": "1 where the evaluation became best/",
}

# What a metric needs in the configuration; those that are always there, and can be searched for.
NEEDS = {"dev/sts": "evaluate.sts", "dev/mrr": "evaluate.retrieval", "dev/recall_at_1": "evaluate.retrieval"}
ALWAYS = ("dev/effective_rank", "dev/uniformity", "dev/std", "dev/mean_cosine")
DECIDING = ("dev/sts", "dev/mrr")  # the first that is configured decides which checkpoint is best


def best_metric(scores: Mapping[str, float]) -> tuple[str, float] | None:
    """What decides which checkpoint is best: dev/sts where configured, else dev/mrr. NaN is never best, nor is one point."""
    for name in DECIDING:
        if name in scores:
            usable = math.isfinite(scores[name]) and not scores.get("dev/collapsed")
            return (name, scores[name]) if usable else None
    return None
