"""R ranks compute what one rank computes; every sentence is encoded once; NaN is never best."""

import threading
from collections import Counter

import numpy as np
import pytest

from unsee_dist.evaluation.development import Development, deal, warnings
from unsee_dist.metrics.geometry import NAMES
from unsee_dist.metrics.names import best_metric
from unsee_dist.metrics.retrieval import make_questions, tfidf_scores
from unsee_dist.metrics.sts import Pairs, spearman
from unsee_dist.metrics.tfidf import tfidf_spearman


def _tasks(seed=0):
    rng = np.random.default_rng(seed)
    words = [" ".join(["word"] * int(rng.integers(1, 9)) + [str(i)]) for i in range(60)]
    pairs = Pairs(list(rng.choice(words, 50)), list(rng.choice(words, 50)), rng.random(50))
    questions = make_questions([(words[i], f"answer {i}") for i in range(20)], "test")
    return {"set": pairs}, {"set": questions}, words[:30]


def _embed(sentence):
    return np.random.default_rng(sum(sentence.encode()) * len(sentence)).normal(size=12).astype(np.float32)


class _Ranks:
    """Threads that stand for ranks; their gather waits for all and joins in rank order."""

    def __init__(self, size):
        self.size, self.barrier, self.parts, self.encoded = size, threading.Barrier(size, timeout=20), {}, {}

    def run(self, *tasks):
        results = {}

        def one(rank):
            def gather(rows):
                self.parts[rank] = rows
                self.barrier.wait()
                return np.concatenate([self.parts[r] for r in range(self.size)])

            def encode(sentences):
                assert rank not in self.encoded, "encode is called once"
                self.encoded[rank] = sentences
                return np.stack([_embed(s) for s in sentences])

            results[rank] = Development(*tasks, rank, self.size, gather)(encode)

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.size)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        return [results[rank] for rank in range(self.size)]


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_any_number_of_ranks_scores_what_one_rank_scores(size):
    tasks = _tasks()
    alone = Development(*tasks)(lambda s: np.stack([_embed(x) for x in s]))
    ranks = _Ranks(size)
    assert ranks.run(*tasks) == [alone] * size
    assert len({len(part) for part in ranks.encoded.values()}) == 1
    counts = Counter(s for part in ranks.encoded.values() for s in part)
    assert len(counts) == len(
        {
            *tasks[0]["set"].first,
            *tasks[0]["set"].second,
            *tasks[1]["set"].queries,
            *tasks[1]["set"].answers,
            *tasks[2],
        }
    )
    assert sum(counts.values()) - len(counts) < size  # repeated only to fill the last row


def test_its_scores_are_those_of_the_metrics_alone():
    sets, questions, probe = _tasks(1)

    def encode(s):
        return np.stack([_embed(x) for x in s])

    scores = Development(sets, questions, probe)(encode)
    assert scores["dev/sts"] == spearman(sets["set"], encode)
    assert scores["dev/candidates"] == 20
    assert scores["dev/collapsed"] == 0
    assert {key for key in scores if not key.startswith("dev/spectrum/")} == {
        *("dev/sts", "dev/alignment", "dev/mrr", "dev/recall_at_1", "dev/candidates"),
        *("dev/uniformity", "dev/collapsed", *(f"dev/{name}" for name in NAMES)),
    }
    assert "dev/sts" not in Development({}, {}, probe)(encode)


def test_several_sets_score_by_name_and_their_mean_decides():
    (one, questions, probe), (other, _, _) = _tasks(1), _tasks(2)
    sets = {"one": one["set"], "other": other["set"]}

    def encode(s):
        return np.stack([_embed(x) for x in s])

    scores = Development(sets, questions, probe)(encode)
    each = {name: spearman(pairs, encode) for name, pairs in sets.items()}
    assert {name: scores[f"dev/sts/{name}"] for name in sets} == each
    assert scores["dev/sts"] == pytest.approx(np.mean(list(each.values())))


def test_a_collapsed_encoder_is_flagged_and_never_best():
    scores = Development(*_tasks())(lambda s: np.ones((len(s), 12), dtype=np.float32))
    assert scores["dev/collapsed"] == 1
    assert np.isnan(scores["dev/sts"])
    assert best_metric(scores) is None
    assert best_metric({"dev/mrr": 1 / 20, "dev/collapsed": 1.0}) is None  # a tie of all answers is no number
    assert best_metric({"dev/mrr": 1 / 20, "dev/collapsed": 0.0}) == ("dev/mrr", 1 / 20)


def test_the_baseline_is_tfidf_and_a_score_below_it_is_a_warning():
    sts, retrieval, probe = _tasks()
    baseline = Development(sts, retrieval, probe).baseline()
    assert baseline["dev/sts"] == tfidf_spearman(sts["set"])
    assert {
        f"dev/{name}": value for name, value in tfidf_scores(retrieval["set"]).items()
    }.items() <= baseline.items()
    good = {name: value + 0.1 for name, value in baseline.items()} | {"dev/collapsed": 0.0}
    assert warnings(good, baseline) == []
    (sentence,) = warnings(good | {"dev/sts": baseline["dev/sts"] - 1}, baseline)
    assert sentence.startswith("dev/sts")
    assert "below TF-IDF" in sentence
    for std, word in ((0.0, "one point"), (float("nan"), "not finite")):
        (sentence,) = warnings(good | {"dev/collapsed": 1.0, "dev/std": std}, baseline)
        assert word in sentence
    assert warnings({"dev/std": 1.0}, {}) == []


@pytest.mark.parametrize("size", [1, 2, 3, 5, 11])
def test_dealing_gives_all_ranks_equally_many_and_similar_lengths(size):
    for count in range(1, 40):
        parts = [deal(count, rank, size)[0] for rank in range(size)]
        assert len({len(part) for part in parts}) == 1
        assert sorted({i for part in parts for i in part}) == list(range(count))
        assert all(deal(count, rank, size)[1] == [i for part in parts for i in part] for rank in range(size))
        assert all(max(row) - min(row) < size for row in zip(*parts, strict=True))


def test_sts_decides_before_mrr_and_nothing_decides_without_either():
    assert best_metric({"dev/mrr": 0.5, "dev/sts": 70.0}) == ("dev/sts", 70.0)
    assert best_metric({"dev/mrr": 0.5, "dev/std": 1.0}) == ("dev/mrr", 0.5)
    assert best_metric({"dev/mrr": 0.5, "dev/sts": float("nan")}) is None
    assert best_metric({"dev/std": 1.0}) is None


def test_too_small_a_corpus_is_a_sentence():
    with pytest.raises(ValueError, match="needs at least 2"):
        Development({}, {}, ["one"])
