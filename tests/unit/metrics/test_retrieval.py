"""MRR and recall equal a sort written out; ties count against; constant embeddings gain nothing."""

import math

import numpy as np
import pytest

from unsee_dist.evaluation.question_files import load_question_sets, load_questions
from unsee_dist.metrics import retrieval
from unsee_dist.metrics.retrieval import make_questions, retrieval_scores, set_scores, tfidf_scores
from unsee_dist.metrics.sts import Pairs
from unsee_dist.metrics.tfidf import tfidf_spearman


def _case(seed, count=37, width=8):
    rng = np.random.default_rng(seed)
    pairs = [(f"q{i}", f"a{i % (count - 5)}") for i in range(count)]
    table = {answer: rng.normal(size=width).astype(np.float32) for _, answer in pairs}
    table |= {query: table[answer] + rng.normal(size=width).astype(np.float32) for query, answer in pairs}
    return pairs, lambda sentences: np.stack([table[s] for s in sentences])


def _written_out(pairs, encode):
    answers = sorted({answer for _, answer in pairs})
    reciprocal = []
    for query, own in pairs:
        q = encode([query])[0]
        cosine = {
            a: float(q @ encode([a])[0] / np.linalg.norm(q) / np.linalg.norm(encode([a])[0])) for a in answers
        }
        reciprocal.append(1 / (1 + sum(cosine[a] > cosine[own] for a in answers)))
    return float(np.mean(reciprocal)), float(np.mean(np.array(reciprocal) == 1)), len(answers)


@pytest.mark.parametrize("block", [1, 5, 37, 1024])
def test_scores_equal_a_ranking_written_out_for_any_block(monkeypatch, block):
    monkeypatch.setattr(retrieval, "BLOCK", block)
    pairs, encode = _case(0)
    mrr, recall, candidates = _written_out(pairs, encode)
    scores = retrieval_scores(make_questions(pairs, "test"), encode)
    assert scores == {
        "mrr": pytest.approx(mrr),
        "recall_at_1": pytest.approx(recall),
        "candidates": candidates,
    }
    assert 0 < recall < 1  # the case can tell


def test_constant_embeddings_score_one_in_candidates_and_nan_scores_nan():
    questions = make_questions(_case(1)[0], "test")
    scores = retrieval_scores(questions, lambda s: np.full((len(s), 24), 0.1, dtype=np.float32))
    assert scores == {"mrr": pytest.approx(1 / 32), "recall_at_1": 0, "candidates": 32}
    broken = retrieval_scores(questions, lambda s: np.full((len(s), 24), np.nan, dtype=np.float32))
    assert np.isnan(broken["mrr"])
    assert np.isnan(broken["recall_at_1"])


def test_a_perfect_encoder_scores_one():
    pairs, _ = _case(2)
    names = sorted({answer for _, answer in pairs})
    own = dict(pairs)

    def encode(s):
        return np.eye(len(names))[[names.index(own.get(x, x)) for x in s]]

    scores = retrieval_scores(make_questions(pairs, "test"), encode)
    assert (scores["mrr"], scores["recall_at_1"]) == (1, 1)


@pytest.mark.parametrize("blank", ["", " "])
def test_tfidf_counts_where_no_word_has_two_letters(blank):
    """Chinese without blanks is one word a clause to it; with one after each character, those are its words."""
    texts = [("天气很好", "天气好"), ("他在吃饭", "吃饭"), ("猫在睡觉", "猫睡觉")]
    apart = [tuple(blank.join(text) for text in pair) for pair in texts]
    assert tfidf_scores(make_questions(apart, "test"))["recall_at_1"] == (1 if blank else 0)
    with pytest.raises(ValueError, match="all 4 texts are blank"):
        tfidf_scores(make_questions([(" ", "  "), ("   ", "    ")], "test"))


def test_tfidf_finds_shared_words_and_not_unshared_ones():
    shared_words = [(f"word{i} begins", f"word{i} ends") for i in range(20)]
    assert tfidf_scores(make_questions(shared_words, "test"))["recall_at_1"] == 1
    unshared = [(f"left{i}", f"right{i}") for i in range(20)]
    assert tfidf_scores(make_questions(unshared, "test")) == {
        "mrr": pytest.approx(1 / 20), "recall_at_1": 0, "candidates": 20,
    }  # fmt: skip


def test_files_are_read_by_header_and_mistakes_are_sentences(tmp_path):
    path = tmp_path / "dev.tsv"
    path.write_text("answer\tquery\nthe rest\tthe first\nmore\tsecond\nmore\tthird\n")
    questions = load_questions(path)
    assert questions.queries == ["the first", "second", "third"]
    assert questions.answers == ["the rest", "more"]
    assert questions.own.tolist() == [0, 1, 1]
    path.write_text("query\tanswer\na\tb\n")
    with pytest.raises(ValueError, match="fewer than two different answers"):
        load_questions(path)
    path.write_text("question\tanswer\na\tb\n")
    with pytest.raises(ValueError, match="no column query"):
        load_questions(path)


def test_several_sets_score_by_name_and_on_average_of_the_smallest_count(tmp_path):
    (pairs, encode), (more, encode_more) = _case(3), _case(4, count=20)
    sets = {"a": make_questions(pairs, "a"), "b": make_questions([(f"b{q}", f"b{a}") for q, a in more], "b")}
    table = {s: encode([s])[0] for pair in pairs for s in pair}
    table |= {f"b{s}": encode_more([s])[0] for pair in more for s in pair}
    each = {
        name: retrieval_scores(questions, lambda s: np.stack([table[x] for x in s]))
        for name, questions in sets.items()
    }
    found = set_scores(sets, table)
    assert found["mrr"] == pytest.approx((each["a"]["mrr"] + each["b"]["mrr"]) / 2)
    assert found["mrr/b"] == each["b"]["mrr"]
    assert found["candidates"] == 15
    assert set_scores({"a": sets["a"]}, table) == each["a"]
    (tmp_path / "other").mkdir()
    for path in (tmp_path / "dev.tsv", tmp_path / "other" / "dev.tsv"):
        path.write_text("query\tanswer\na\tb\nc\td\n")
    assert list(load_question_sets(str(tmp_path / "dev.tsv"))) == ["dev"]
    with pytest.raises(ValueError, match="two files are called dev"):
        load_question_sets([str(tmp_path / "dev.tsv"), str(tmp_path / "other" / "dev.tsv")])


@pytest.mark.filterwarnings("error")
def test_pairs_without_a_common_word_give_no_order_and_no_warning():
    assert math.isnan(tfidf_spearman(Pairs(["a b", "cc"], ["dd", "ee"], np.array([1.0, 2.0]))))
