"""The scores without labels, of encoders whose order is known: one that sees the topic, one that sees words, one that sees nothing."""

from __future__ import annotations

import hashlib

import label_free
import numpy as np
import pytest
from label_free import Encoder, candidates, material, tabulate

DOCUMENTS = [
    [
        f"topic{topic} word{topic}-{place} says thing{(topic * 7 + place * 3) % 40} and more{place}"
        for place in range(12)
    ]
    for topic in range(60)
]


def embed_words(texts: list[str], weight: float = 1.0, width: int = 64) -> np.ndarray:
    """A bag of words: each word a fixed direction; the first, which is the document's, `weight` times as long."""
    rows = []
    for text in texts:
        seeds = [int(hashlib.sha256(word.encode()).hexdigest()[:8], 16) for word in text.split()]
        words = np.stack([np.random.default_rng(seed).standard_normal(width) for seed in seeds])
        rows.append(
            (
                words
                * np.array(
                    [weight if text.split()[k].startswith("topic") else 1.0 for k in range(len(words))]
                )[:, None]
            ).sum(axis=0)
        )
    return np.stack(rows)


class Nothing:
    """Other rows at every call, whatever the texts are."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __call__(self, texts: list[str]) -> np.ndarray:
        return self.rng.standard_normal((len(texts), 64))


@pytest.fixture(scope="module")
def of():
    return material(DOCUMENTS)


def test_a_sentence_its_next_and_one_further_on_are_of_one_document(of):
    for first, after, far in zip(of.first, of.next, of.far, strict=True):
        assert first.split()[0] == after.split()[0] == far.split()[0]
        assert len({first, after, far}) == 3
    assert all(
        place not in near for place, near in enumerate(of.hard)
    )  # its own answer is no wrong candidate
    for share, texts in zip(label_free.GONE, of.corrupted, strict=True):
        kept = len(texts[0].split()) / len(of.first[0].split())
        assert kept == pytest.approx(1 - share, abs=0.1)
        assert set(texts[0].split()) < set(of.first[0].split())


def test_scores_order_encoders_whose_order_is_known(of):
    topic = candidates(of, lambda texts: embed_words(texts, 3.0), lambda texts: embed_words(texts, 3.0))
    words = candidates(of, embed_words, embed_words)
    nothing = candidates(of, Nothing(), Nothing())
    for name in ("neighbour_mrr", "neighbour_recall", "hard_mrr", "likelihood", "same_document", "alignment"):
        assert topic[name] > words[name] > nothing[name], name
    assert words["corruption"] > 0.9
    assert (
        nothing["corruption"] < 0.7
    )  # the whole sentence is 1 to itself, and the order of the others is noise
    assert topic["dropout_recall"] == 1
    assert nothing["dropout_recall"] < 0.2
    assert nothing["rank"] > topic["rank"]
    assert topic["isotropy"] == pytest.approx(0, abs=0.3)


def test_a_score_that_orders_within_starts_alone_has_no_rho_over_all(monkeypatch):
    """Two starts, far apart: over all the score says the opposite of what it says inside."""
    monkeypatch.setattr(label_free, "DRAWS", 200)
    encoders = []
    for start, shift in (("weak", 0.0), ("strong", 100.0)):
        for place in range(8):
            scores = {"good": place + shift, "inside": place - shift, "noise": float((place * 5) % 8)}
            encoders.append(
                Encoder(start, "m", scores | dict.fromkeys(label_free.TOGETHER, 0.0), {"sts": place + shift})
            )
    rows = {row["score"]: row for row in tabulate(encoders)}
    assert rows["good"]["rho"] == rows["good"]["within"] == pytest.approx(1)
    assert rows["inside"]["rho"] < 0 < rows["inside"]["within"]
    assert rows["inside"]["within_interval"][0] > 0.9
    assert rows["noise"]["within_interval"][0] < 0.5
    assert np.isnan(rows["neighbour_mrr"]["rho"])  # equal for all: no number, not 0
