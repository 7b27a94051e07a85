"""What an encoder does to sentences, before and after: nearest neighbours, a map; and which sentences are drawn.

Drawn by chance, always with the same seed: nothing is chosen because it looks good.
Shapes: N sentences, D width, K neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from unsee_dist.metrics.cosine import collapsed, unit_rows
from unsee_dist.metrics.retrieval import Questions
from unsee_dist.metrics.sts import Pairs
from unsee_dist.report.encoders import Encoded, Sets
from unsee_dist.report.plots import SURFACE, Plot, colour, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEED = 0
MOST_PAIRS = 1500  # of a set, for the plots and the interval
MOST_QUESTIONS = 300
SHOWN, NEAREST = 6, 3  # sentences whose neighbours are listed, and how many of them
MAPPED, CLUSTERS = 400, 6
FEWEST = 30  # sentences, for neighbours and a map


class Neighbour(NamedTuple):
    text: str
    cosine: float
    new: bool  # not among the nearest before training


class Neighbours(NamedTuple):
    """A sentence and its nearest, an encoder a column."""

    sentence: str
    columns: list[list[Neighbour]]


class Cluster(NamedTuple):
    place: int  # of its colour
    words: str
    sentences: int


class Map(NamedTuple):
    plots: list[Plot]
    clusters: list[Cluster]


def sample(sets: Sets) -> Sets:
    """At most so many pairs and questions of each set as are shown."""
    rng = np.random.default_rng(SEED)
    sts = {name: _some_pairs(pairs, rng) for name, pairs in sets.sts.items()}
    retrieval = {name: _some_questions(each, rng) for name, each in sets.retrieval.items()}
    return Sets(sts, retrieval, sets.pool, sets.problems)


def all_sentences(sets: Sets) -> list[str]:
    sentences = [*sets.pool]
    for pairs in sets.sts.values():
        sentences += pairs.first + pairs.second
    for questions in sets.retrieval.values():
        sentences += questions.queries + questions.answers
    return list(dict.fromkeys(sentences))


def pool_of(sets: Sets) -> list[str]:
    """Sentences of the corpus; where it cannot be read, those of the sets."""
    if len(sets.pool) >= FEWEST:
        return sets.pool
    others = all_sentences(sets)
    np.random.default_rng(SEED).shuffle(others)
    return others[:MAPPED]


def neighbours(pool: Sequence[str], encoders: Sequence[Encoded]) -> list[Neighbours]:
    """Of some sentences of the pool, the nearest others of it by cosine. The first encoder is the one before training."""
    drawn = sorted(np.random.default_rng(SEED).choice(len(pool), size=min(SHOWN, len(pool)), replace=False))
    nearest = [_nearest(rows_of(pool, encoder.embeddings), drawn) for encoder in encoders]
    views = []
    for row, number in enumerate(drawn):
        known = {other for other, _ in nearest[0][row]}
        columns = [
            [Neighbour(pool[other], cosine, other not in known) for other, cosine in of_encoder[row]]
            for of_encoder in nearest
        ]
        views.append(Neighbours(pool[number], columns))
    return views


def map_of(pool: Sequence[str], encoders: Sequence[Encoded]) -> Map:
    """t-SNE of each encoder's embeddings. A colour is a cluster (k-means) of the last encoder, in all of them."""
    texts = list(pool)[:MAPPED]
    units = [rows_of(texts, encoder.embeddings) for encoder in encoders]
    cluster_N = _clusters(units[-1])
    plots = []
    for encoder, u_ND in zip(encoders, units, strict=True):
        place_N2 = _projected(u_ND)
        unit = f"t-SNE of {len(texts)} sentences"
        fill = _points(place_N2, cluster_N)
        plots.append(Plot(encoder.name, unit, svg(fill, f"Map: {encoder.name}, {unit}", (4.0, 3.6))))
    words = _words(texts, cluster_N)
    sizes = np.bincount(cluster_N)
    return Map(plots, [Cluster(place, words[place], int(size)) for place, size in enumerate(sizes)])


def usable(encoded: Encoded | None, texts: Sequence[str]) -> bool:
    """Whether an encoder's embeddings can be looked at: finite, and not one point."""
    return encoded is not None and not collapsed(rows_of(texts, encoded.embeddings))


def _some_pairs(pairs: Pairs, rng: np.random.Generator) -> Pairs:
    if len(pairs.scores) <= MOST_PAIRS:
        return pairs
    kept = sorted(rng.choice(len(pairs.scores), size=MOST_PAIRS, replace=False))
    return Pairs([pairs.first[i] for i in kept], [pairs.second[i] for i in kept], pairs.scores[kept])


def _some_questions(questions: Questions, rng: np.random.Generator) -> Questions:
    """Some queries, and only their answers: cosines are shown, no ranks."""
    count = min(len(questions.queries), MOST_QUESTIONS)
    kept = sorted(rng.choice(len(questions.queries), size=count, replace=False))
    answers, own = np.unique(questions.own[kept], return_inverse=True)
    return Questions([questions.queries[i] for i in kept], [questions.answers[i] for i in answers], own)


def rows_of(texts: Sequence[str], embeddings: Mapping[str, np.ndarray]) -> np.ndarray:
    """Unit vectors."""
    return unit_rows(np.stack([embeddings[text] for text in texts]))


def _nearest(u_ND: np.ndarray, drawn: Sequence[int]) -> list[list[tuple[int, float]]]:
    cosines_KN = u_ND[drawn] @ u_ND.T
    cosines_KN[np.arange(len(drawn)), drawn] = -np.inf  # itself
    order_KN = np.argsort(-cosines_KN, axis=1, kind="stable")[:, :NEAREST]
    return [[(int(i), float(row[i])) for i in order] for row, order in zip(cosines_KN, order_KN, strict=True)]


def _clusters(u_ND: np.ndarray) -> np.ndarray:
    """The number of each row's cluster, the largest first."""
    from sklearn.cluster import KMeans

    number_N = KMeans(CLUSTERS, n_init=4, random_state=SEED).fit_predict(u_ND)
    order = np.argsort(-np.bincount(number_N, minlength=CLUSTERS), kind="stable")
    return np.argsort(order, kind="stable")[number_N]


def _projected(u_ND: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(u_ND) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=SEED).fit_transform(u_ND)


def _words(texts: Sequence[str], cluster_N: np.ndarray) -> list[str]:
    """Words that a cluster's sentences have more often than the others: TF-IDF, averaged. Frequent words are left out."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        counts = TfidfVectorizer(max_df=0.05, min_df=2).fit(texts)
    except ValueError:  # no such word: a language without blanks, or few sentences
        return [""] * CLUSTERS
    weights_NV, names = counts.transform(texts).toarray(), counts.get_feature_names_out()
    words = []
    for number in range(CLUSTERS):
        inside = cluster_N == number
        gain_V = weights_NV[inside].mean(axis=0) - weights_NV[~inside].mean(axis=0)
        words.append(", ".join(names[i] for i in np.argsort(-gain_V)[:4]))
    return words


def _points(place_N2: np.ndarray, cluster_N: np.ndarray) -> Callable[[Axes], None]:
    def fill(axes: Axes) -> None:
        for number in np.unique(cluster_N):
            inside = place_N2[cluster_N == number]
            axes.plot(
                *inside.T, "o", color=colour(int(number)), markersize=4, markeredgewidth=0.4,
                markeredgecolor=SURFACE, alpha=0.85,
            )  # fmt: skip
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines["bottom"].set_visible(False)
        axes.margins(0.03)

    return fill
