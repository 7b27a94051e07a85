"""What the scores of an evaluation say of the encoder: that it has collapsed, or that training made it worse.

Each sentence is made here only: the console, the exported folders, the model card, MLflow and reports show the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from unsee_dist.metrics.cosine import CONSTANT
from unsee_dist.metrics.names import COLLAPSED, DECIDING, EFFECTIVE_RANK, GAIN, STD, STS, best_metric, dev

# A gain is shown with as many digits as its score is.
DIGITS = {dev(STS): 2}
ADVICE = (
    "Try a third of train.lr, fewer train.steps, a larger train.batch, or another objective; most harm is done early, so "
    "evaluate.every=0.01 shows it soon. What helps which encoder: the page of evidence in the docs (unsee reproduce start)."
)


def state(scores: Mapping[str, float]) -> str | None:
    """In what state collapsed embeddings are: "not finite", "one point", or their rank and std. None: not collapsed."""
    if not scores.get(dev(COLLAPSED)):
        return None
    std, rank = scores.get(dev(STD), math.nan), scores.get(dev(EFFECTIVE_RANK), math.nan)
    if not math.isfinite(std):
        return "not finite"
    return "one point" if std < CONSTANT else f"effective rank {rank:.1f}, std {std:.2g}"


def collapse(scores: Mapping[str, float]) -> str | None:
    """How the embeddings of an evaluation have collapsed, in words; None where they have not."""
    found = state(scores)
    if found in ("not finite", "one point"):
        return f"the embeddings of all sentences are {found}"
    return found and f"the embeddings have collapsed ({found})"


def gain_over(before: Mapping[str, float], scores: Mapping[str, float]) -> dict[str, float]:
    """{dev/gain: the deciding score minus the one before training}; {} where one of them has none."""
    first, now = best_metric(before), best_metric(scores)
    return {dev(GAIN): now[1] - first[1]} if first and now and first[0] == now[0] else {}


def decline(scores: Mapping[str, float]) -> str | None:
    """That the encoder of an evaluation is worse than before training, and by how much; None where it is not."""
    gain, deciding = scores.get(dev(GAIN), math.nan), best_metric(scores)
    if deciding is None or not gain < 0:
        return None
    name, value = deciding
    digits = DIGITS.get(name, 3)
    return f"worse than before training: {name} {value:.{digits}f}, before {value - gain:.{digits}f}"


def improvement(scores: Mapping[str, float]) -> str | None:
    """That the encoder of an evaluation is better than before training, and by how much; None where it is not."""
    gain = scores.get(dev(GAIN), math.nan)
    return f"better than before training by {gain:.3f}" if gain > 0 else None


def below_baseline(scores: Mapping[str, float], baseline: Mapping[str, float]) -> list[str]:
    """A sentence for each deciding score that is below the baseline's, TF-IDF."""
    return [
        f"{name} {scores[name]:.4g} is below TF-IDF ({baseline[name]:.4g}), which only counts words"
        for name in DECIDING
        if name in baseline and name in scores and scores[name] < baseline[name]
    ]
