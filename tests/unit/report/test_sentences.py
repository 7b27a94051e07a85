"""What is shown of encoders is what their embeddings are: the nearest, clusters, and no luck in the draw."""

from __future__ import annotations

import numpy as np
import pytest

from unsee_dist.metrics.sts import Pairs
from unsee_dist.report import sentences
from unsee_dist.report.encoders import Encoded, Sets


@pytest.fixture
def texts() -> list[str]:
    words = ["river bank water", "engine motor wheel", "garden flower tree", "music song piano"]
    return [f"{words[number % 4]} number {number}" for number in range(80)]


def embedded(texts: list[str], seed: int, spread: float) -> Encoded:
    """Four directions, one a theme, with noise."""
    rng = np.random.default_rng(seed)
    centres_4D = np.eye(4, 16) * 3
    rows = [centres_4D[number % 4] + spread * rng.normal(size=16) for number in range(len(texts))]
    return Encoded(f"seed {seed}", dict(zip(texts, rows, strict=True)))


def test_neighbours_are_the_nearest_others_and_new_ones_are_marked(texts: list[str]) -> None:
    before, after = embedded(texts, 0, 1.0), embedded(texts, 1, 0.1)
    found = sentences.neighbours(texts, [before, after])
    assert len(found) == sentences.SHOWN
    for row in found:
        of_before = {each.text for each in row.columns[0]}
        assert not any(each.new for each in row.columns[0])
        for column, encoder in zip(row.columns, (before, after), strict=True):
            own = encoder.embeddings[row.sentence]
            cosines = {
                text: own @ other / np.linalg.norm(own) / np.linalg.norm(other)
                for text, other in encoder.embeddings.items()
                if text != row.sentence
            }
            nearest = sorted(cosines, key=lambda text: -cosines[text])[: sentences.NEAREST]
            assert [each.text for each in column] == nearest
            assert [each.cosine for each in column] == pytest.approx([cosines[text] for text in nearest])
        assert all(each.new is (each.text not in of_before) for each in row.columns[1])
    assert sentences.neighbours(texts, [before, after]) == found  # drawn the same again


def test_a_map_colours_themes_and_names_them(texts: list[str]) -> None:
    found = sentences.map_of(texts, [embedded(texts, 0, 1.0), embedded(texts, 1, 0.1)])
    assert [plot.title for plot in found.plots] == ["seed 0", "seed 1"]
    assert sum(cluster.sentences for cluster in found.clusters) == len(texts)
    assert len(found.clusters) == sentences.CLUSTERS


def test_a_sample_of_a_large_set_keeps_pairs_together_and_is_the_same_again() -> None:
    count = 3 * sentences.MOST_PAIRS
    large = Pairs(
        [f"a{i}" for i in range(count)], [f"b{i}" for i in range(count)], np.arange(count, dtype=float)
    )
    questions = sentences.Questions(
        [f"q{i}" for i in range(2000)], [f"x{i}" for i in range(1000)], np.arange(2000) % 1000
    )
    some = sentences.sample(Sets({"dev": large}, {"own": questions}, [], []))
    kept = some.sts["dev"]
    assert len(kept.scores) == sentences.MOST_PAIRS
    assert all(f[1:] == s[1:] == f"{int(score)}" for f, s, score in zip(*kept, strict=True))
    asked = some.retrieval["own"]
    for query, own in zip(asked.queries, asked.own, strict=True):
        assert asked.answers[own] == f"x{int(query[1:]) % 1000}"
    again = sentences.sample(Sets({"dev": large}, {}, [], [])).sts["dev"]
    assert again.first == kept.first


def test_embeddings_at_one_point_are_not_looked_at(texts: list[str]) -> None:
    point = Encoded("point", {text: np.ones(4) for text in texts})
    assert not sentences.usable(point, texts)
    assert not sentences.usable(None, texts)
    assert sentences.usable(embedded(texts, 0, 1.0), texts)
