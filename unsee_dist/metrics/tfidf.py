"""TF-IDF, the baseline that needs no training: an encoder that counts the words of the task's own texts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer

from unsee_dist.errors import UserError
from unsee_dist.metrics.sts import Pairs

WORDS = 8192  # the most frequent ones: mteb wants dense rows, and 20,000 texts of 8,192 words are 0.7 GB


class TfIdf:
    """`prepare` on all texts of a task, then (n texts) -> (n, words) float32."""

    def prepare(self, texts: Sequence[str]) -> None:
        """Learn the words. UserError: there are none."""
        self.counts = word_counts(texts, max_features=WORDS, dtype=np.float32)

    def __call__(self, texts: list[str]) -> np.ndarray:
        return self.counts.transform(texts).toarray()


def word_counts(
    texts: Sequence[str], max_features: int | None = None, dtype: type[np.floating] = np.float64
) -> TfidfVectorizer:
    """Fitted with scikit-learn's defaults, by which a word has two letters and more.

    Where no text has such a word (Chinese, a blank after each character) a word is any text between blanks.
    UserError: all texts are blank.
    """
    try:
        return TfidfVectorizer(max_features=max_features, dtype=dtype).fit(texts)
    except ValueError:  # "empty vocabulary"
        anything = TfidfVectorizer(token_pattern=r"\S+", max_features=max_features, dtype=dtype)
    try:
        return anything.fit(texts)
    except ValueError as error:
        raise UserError(
            f"TF-IDF counts words, and all {len(texts)} texts are blank. Give texts with words."
        ) from error


def tfidf_spearman(pairs: Pairs) -> float:
    """Spearman x 100 of TF-IDF cosines on sentence pairs, fitted on those sentences; NaN where all cosines are equal."""
    counts = word_counts(pairs.first + pairs.second)
    first_NV, second_NV = counts.transform(pairs.first), counts.transform(pairs.second)
    cosines_N = np.asarray(first_NV.multiply(second_NV).sum(axis=1)).ravel()
    if np.ptp(cosines_N) == 0:  # no order; scipy would say so to whoever reads the terminal
        return math.nan
    return 100 * float(spearmanr(cosines_N, pairs.scores).statistic)
