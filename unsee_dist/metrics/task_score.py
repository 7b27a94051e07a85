"""The score of an encoder on one task, with everything it depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import with_config

from unsee_dist.files.records import STRICT


@with_config(STRICT)
@dataclass(frozen=True)
class ModelIdentity:
    """The name of a model, and a digest of its weights and pooling."""

    name: str
    revision: str


@with_config(STRICT)
@dataclass(frozen=True)
class PairCosines:
    """Of an STS task: the cosine of each pair, and the similarity that people gave it."""

    cosines: list[float]
    scores: list[float]


@dataclass(frozen=True)
class TaskScore:
    """score: x 100; None when the embeddings are unusable, and `unusable` says why. metric: the name of mteb's score.

    data: a digest of the task's data, or its revision on the Hub. mteb: its version. geometry: see geometry.py. tfidf:
    the score of the TF-IDF baseline, x 100. tfidf and pairs are of STS tasks only.
    """

    task: str
    group: str
    benchmark: str
    metric: str
    data: str
    mteb: str
    model: ModelIdentity
    score: float | None
    seconds: float
    geometry: Mapping[str, float] = field(default_factory=dict)
    unusable: str | None = None
    tfidf: float | None = None
    pairs: PairCosines | None = None

    @property
    def below_tfidf(self) -> bool:
        """Whether the score is below the baseline, as both are shown: with two digits."""
        return (
            self.score is not None and self.tfidf is not None and round(self.score, 2) < round(self.tfidf, 2)
        )
