"""Rows of seeds: mean ± deviation, no mean over missing tasks, no number beside an unusable encoder."""

import numpy as np
import pytest

from unsee_dist.errors import UserError
from unsee_dist.evaluation.comparison import (
    ComparisonRow,
    as_dict,
    cell,
    check_common,
    markdown,
    sentences,
    tasks_of,
)
from unsee_dist.metrics.task_score import ModelIdentity, PairCosines, TaskScore


def _score(task, group, score, data="d", noise=None, **more):
    pairs = None
    if noise is not None:
        y = np.random.default_rng(0).integers(0, 6, 200).astype(float)
        pairs = PairCosines((y + np.random.default_rng(1).normal(size=200) * noise).tolist(), y.tolist())
    model = ModelIdentity("a", "b")
    return TaskScore(task, group, "local", "m", data, "2", model, score, seconds=1.0, pairs=pairs, **more)


def _row(name, *seeds):
    return ComparisonRow(name, tuple({score.task: score for score in seed} for seed in seeds))


def test_seeds_are_mean_and_deviation_and_groups_are_means_of_tasks_by_seed():
    row = _row(
        "a",
        [_score("x", "STS", 60), _score("y", "STS", 70)],
        [_score("x", "STS", 64), _score("y", "STS", 70)],
    )
    assert cell(row.values("x")) == f"62.00 ± {np.std([60, 64], ddof=1):.2f}"
    assert row.mean(["x", "y"]) == [65, 67]
    shown = markdown([row, row])
    assert "| a | 2 | 62.00 ± 2.83 | 70.00 ± 0.00 | 66.00 ± 1.41 |" in shown
    assert "local · mteb 2;" in shown
    assert as_dict([row, row])["benchmarks"] == "local · mteb 2"


def test_many_tasks_are_rows_and_few_are_columns():
    few, many = ([_score(f"t{n}", "STS", 60 + n) for n in range(count)] for count in (3, 5))
    assert "| a | 1 | 60.00 | 61.00 | 62.00 | 61.00 |" in markdown([_row("a", few), _row("b", few)])
    lines = markdown([_row("a", many), _row("b", many, many)]).split("\n")
    assert lines[:4] == [
        "| encoder | a | b |",
        "|---|---:|---:|",
        "| seeds | 1 | 2 |",
        "| t0 | 60.00 | 60.00 ± 0.00 |",
    ]
    assert lines[8] == "| STS (5) | 62.00 | 62.00 ± 0.00 |"


def test_a_missing_task_leaves_no_mean():
    row = _row("a", [_score("x", "STS", 60)], [_score("x", "STS", 64), _score("y", "STS", 70)])
    assert row.values("y") is None
    assert row.mean(["x", "y"]) is None
    assert cell(None) == "–"


def test_an_unusable_encoder_has_no_number_and_the_sentence_says_why():
    good = _row("good", [_score("x", "STS", 60, noise=1)])
    bad = _row("bad", [_score("x", "STS", None, unusable="collapsed: one point")])
    assert sentences([good, bad]) == ["bad cannot be compared: collapsed: one point."]
    assert as_dict([good, bad])["scores"]["bad"]["x"] is None
    assert as_dict([good, bad])["differences"]["bad"] == {}


@pytest.mark.parametrize(("noise", "word"), [(0.3, "better"), (9, "worse"), (1, "no difference")])
def test_a_sentence_says_what_the_interval_allows(noise, word):
    base = _row("base", [_score("x", "STS", 60, noise=1), _score("z", "Clustering", 30)])
    other = _row("other", [_score("x", "STS", 61, noise=noise), _score("z", "Clustering", 33)])
    (text,) = sentences([base, other])
    assert word in text
    assert "+3.00 on z" in text
    assert "not over seeds" in text
    without_pairs = [_row(name, [_score("z", "Clustering", 30)]) for name in ("base", "other")]
    assert sentences(without_pairs) == ["other against base (1 seed and 1 seed): +0.00 on z."]


def test_scores_on_different_data_are_not_compared():
    with pytest.raises(ValueError, match="x: b was evaluated on data other"):
        tasks_of([_row("a", [_score("x", "STS", 60)]), _row("b", [_score("x", "STS", 60, data="other")])])


def test_rows_below_tfidf_are_named_once_for_each_task():
    rows = [
        _row(name, [_score("x", "STS", score, tfidf=69.308)])
        for name, score in (("a", 55), ("b", 80), ("c", 69.3075))
    ]
    rows.append(_row("broken", [_score("x", "STS", None, unusable="collapsed", tfidf=69.308)]))
    assert sentences(rows)[-1] == "Below TF-IDF (69.31), which only counts words, on x: a."
    assert not any("Below" in text for text in sentences(rows[1:3]))


def test_models_without_a_common_task_are_a_mistake():
    base = _row("base", [_score("x", "STS", 60, noise=1), _score("y", "Clustering", 20)])
    check_common([base, _row("part", [_score("y", "Clustering", 30)])])
    other = _row("other", [_score("z", "STS", 60, noise=1)])
    with pytest.raises(UserError) as error:
        check_common([base, base, other])
    assert str(error.value).startswith(
        "other and base have no task in common: z against x, y. Evaluate both on"
    )


def test_an_sts_task_without_its_pairs_is_compared_by_its_scores():
    a, b = (_row(name, [_score("x", "STS", score)]) for name, score in (("a", 60), ("b", 61)))
    assert sentences([a, b]) == ["b against a (1 seed and 1 seed): +1.00 on x."]
