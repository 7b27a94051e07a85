"""TF-IDF, the floor that needs no training: an encoder that counts the words of the task's own texts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer

from unsee_dist.evaluation.sts import Pairs

WORDS = 8192  # the most frequent ones: mteb wants dense rows, and 20,000 texts of 8,192 words are 0.7 GB


class TfIdf:
    """`prepare` on all texts of a task (scikit-learn's defaults), then (n texts) -> (n, words) float32."""

    def prepare(self, texts: Iterable[str]) -> None:
        self.counts = TfidfVectorizer(max_features=WORDS, dtype=np.float32).fit(texts)

    def __call__(self, texts: list[str]) -> np.ndarray:
        return self.counts.transform(texts).toarray()


def tfidf_spearman(pairs: Pairs) -> float:
    """Spearman x 100 of TF-IDF cosines on sentence pairs, fitted on those sentences."""
    counts = TfidfVectorizer().fit(pairs.first + pairs.second)
    first_NV, second_NV = counts.transform(pairs.first), counts.transform(pairs.second)
    cosines_N = np.asarray(first_NV.multiply(second_NV).sum(axis=1)).ravel()
    return 100 * float(spearmanr(cosines_N, pairs.scores).statistic)
