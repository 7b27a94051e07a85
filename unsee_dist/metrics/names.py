"""The names of all numbers in metrics.jsonl, their meaning, and the ones that decide which checkpoint is best.

A training line has the names of TRAINING; every other name in it is a weighted term of the objective. An evaluation
line has names that begin with DEV; those of EVALUATION, and of several sets each with /NAME.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

DEV = "dev/"

# Of a training line. STEP and TIME are in every line, DISTANCE also in an evaluation line, after DEV.
STEP, TIME = "step", "time"
LOSS, LR, DECAY, GRAD_NORM, DISTANCE = "loss", "lr", "decay", "grad_norm", "distance"
SENTENCES, SENTENCES_PER_S, TOKENS_PER_S, WAIT = "sentences", "sentences_per_s", "tokens_per_s", "wait"
SKIPPED, PASSED_OVER, DAMAGED = "skipped", "passed_over", "damaged"

# Of metrics/: in an evaluation line after DEV.
STS, MRR, RECALL_AT_1, CANDIDATES = "sts", "mrr", "recall_at_1", "candidates"
ALIGNMENT, UNIFORMITY, EFFECTIVE_RANK = "alignment", "uniformity", "effective_rank"
STD, STD_MIN, CORRELATION, MEAN_COSINE, SPECTRUM = "std", "std_min", "correlation", "mean_cosine", "spectrum"
COLLAPSED, BEST, GAIN = "collapsed", "best", "gain"


def dev(name: str) -> str:
    """The name of a metric in an evaluation line: dev(STS) = "dev/sts"."""
    return f"{DEV}{name}"


def part(name: str, of: object) -> str:
    """The name of a metric on one of several sets, or of one share of the spectrum: part(STS, "sick") = "sts/sick"."""
    return f"{name}/{of}"


TRAINING = {
    STEP: "batches read, from 1",
    TIME: "seconds since 1970 when the line was written",
    LOSS: "global loss, all its terms, both directions",
    LR: "learning rate of the step",
    DECAY: "share of the target kept",
    GRAD_NORM: "norm of the global gradient before clipping",
    DISTANCE: "|online - target| / |online| over all followed weights",
    SENTENCES: "sentences read so far, over all ranks",
    SENTENCES_PER_S: "sentences a second over all ranks, waiting included",
    TOKENS_PER_S: "tokens a second over all ranks, padding left out",
    WAIT: "share of the step spent waiting for data",
    SKIPPED: "steps so far that changed no weight: loss or gradient not finite, or passed over",
    PASSED_OVER: "steps so far that were left out after a return to a checkpoint",
    DAMAGED: "sentences of the step that are damaged and replaced by others",
}

EVALUATION = {
    dev(STS): "Spearman x 100 on evaluate.sts, mean of the sets",
    dev(MRR): "mean reciprocal rank on evaluate.retrieval, 0 to 1",
    dev(RECALL_AT_1): "share of queries whose answer comes first",
    dev(CANDIDATES): "answers each query chooses from",
    dev(ALIGNMENT): "mean squared distance of pairs that mean the same",
    dev(UNIFORMITY): "log mean exp(-2 distance squared) of sentences of the corpus",
    dev(EFFECTIVE_RANK): "RankMe of centred unit vectors, 1 to the width",
    dev(STD): "mean deviation of a dimension, 1 = isotropic",
    dev(STD_MIN): "smallest deviation of a dimension, 0 = a dead one",
    dev(CORRELATION): "root mean square correlation of two dimensions",
    dev(MEAN_COSINE): "mean cosine of two different sentences",
    dev(SPECTRUM): "share of the k-th largest eigenvalue, as dev/spectrum/k",
    dev(
        COLLAPSED
    ): "1 when the embeddings have collapsed: below guard.effective_rank or guard.std, or not finite",
    dev(DISTANCE): "as distance, at the evaluation",
    dev(BEST): "1 where the evaluation became best/",
    dev(GAIN): "the score that decides which is best, minus the same before training",
}

# The settings that a metric needs; the metrics that every evaluation has.
NEEDS = {
    dev(STS): "evaluate.sts",
    dev(MRR): "evaluate.retrieval",
    dev(RECALL_AT_1): "evaluate.retrieval",
}
ALWAYS = (dev(EFFECTIVE_RANK), dev(UNIFORMITY), dev(STD), dev(MEAN_COSINE))
DECIDING = (dev(STS), dev(MRR))  # the first that is configured decides which checkpoint is best


def best_metric(scores: Mapping[str, float]) -> tuple[str, float] | None:
    """The metric that decides which checkpoint is best, and its value: dev/sts where configured, else dev/mrr. None when
    it is NaN, or all embeddings are one point."""
    for name in DECIDING:
        if name in scores:
            usable = math.isfinite(scores[name]) and not scores.get(dev(COLLAPSED))
            return (name, scores[name]) if usable else None
    return None
