"""A score is read as it was written; a damaged file, or one of another format, is named in one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from unsee_dist.errors import UserError
from unsee_dist.evaluation import compare, evaluate, models
from unsee_dist.evaluation.score_table import mean, summary, warnings
from unsee_dist.evaluation.scores import is_current, read_scores, write_score
from unsee_dist.evaluation.tasks import EvaluationRequest
from unsee_dist.metrics.task_score import ModelIdentity, PairCosines, TaskScore

SCORE = TaskScore(
    task="a/b",
    group="STS",
    benchmark="local",
    metric="cosine_spearman",
    data="d",
    mteb="2",
    model=ModelIdentity("local/x", "r"),
    score=61.5,
    seconds=2,
    geometry={"std": 0.5},
    tfidf=70.0,
    pairs=PairCosines([0.5, -1], [3, 4.0]),
)
UNUSABLE = replace(SCORE, task="c", score=None, unusable="collapsed", tfidf=None, pairs=None, geometry={})


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    for score in (SCORE, UNUSABLE):
        write_score(tmp_path / "model", score)
    assert read_scores(tmp_path / "model") == {"a/b": SCORE, "c": UNUSABLE}
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["a__b.json", "c.json"]
    assert read_scores(tmp_path / "none") == {}


NOWHERE = Path("/proc/nowhere")  # where no user can make a folder


def test_scores_that_cannot_be_written_are_known_before_a_task_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tsv").write_text("sentence1\tsentence2\tscore\nx\ty\t1\nx\tx\t2\n")
    monkeypatch.setattr(models, "ELSEWHERE", NOWHERE)
    monkeypatch.setattr(evaluate, "evaluate_tasks", lambda *_: pytest.fail("measured"))
    with pytest.raises(
        UserError, match=r"nowhere/tfidf, where the scores go, cannot be written \(.*folder that can be"
    ):
        evaluate.measure(EvaluationRequest("tfidf", folders=[tmp_path]))


def test_a_comparison_that_cannot_be_written_is_known_before_a_model_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "rows_of", lambda _: pytest.fail("opened"))
    (tmp_path / "b.png").mkdir()
    for out in (NOWHERE / "a", tmp_path / "new" / ("x" * 300), tmp_path / "b"):
        with pytest.raises(UserError, match=r"--out .* cannot be written|is not a comparison"):
            compare.compare(["a", "b"], out, False)
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]


def _tasks(tree: dict[str, object]) -> list[dict[str, object]]:
    tasks = tree["tasks"]
    assert isinstance(tasks, list)
    return tasks


def _change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"score": "61.5"},
        {"geometry": {"std": None}},
        {"model": "local/x"},
        {"model": {"name": "x"}},
        {"pairs": {"cosines": [0.5]}},
        {"pairs": {"cosines": ["a"], "scores": [1]}},
        {"pairs": {"cosines": [0.5], "scores": [1], "more": 1}},
        {"task": None},
    ],
)
def test_a_wrong_field_is_a_sentence_with_the_file_and_the_remedy(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    write_score(tmp_path, UNUSABLE)
    _change(tmp_path / "c.json", **fields)
    with pytest.raises(UserError, match=r"c\.json is damaged \(.*\)\. Delete it, and evaluate again"):
        read_scores(tmp_path)


def test_a_file_cut_off_anywhere_is_a_sentence_and_a_missing_field_too(tmp_path: Path) -> None:
    write_score(tmp_path, UNUSABLE)
    whole = (tmp_path / "c.json").read_bytes()
    for end in range(len(whole) - 2):
        (tmp_path / "c.json").write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"c\.json is damaged"):
            read_scores(tmp_path)
    tree = json.loads(whole)
    del tree["benchmark"]
    (tmp_path / "c.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match=r"benchmark: Field required"):
        read_scores(tmp_path)


@pytest.mark.parametrize("version", [None, 0, 1])
def test_another_format_is_named_with_file_and_version(tmp_path: Path, version: int | None) -> None:
    write_score(tmp_path, SCORE)
    _change(tmp_path / "a__b.json", format=version)
    with pytest.raises(
        UserError, match=rf"a__b\.json has format {version}, .* Delete it, and evaluate again"
    ):
        read_scores(tmp_path)


@pytest.mark.parametrize(
    ("before", "after"), [("61.5", "81.5"), ("70.0", "50.0"), ('"r"', '"s"'), ("c", "d")]
)
def test_an_edited_score_is_never_shown(tmp_path: Path, before: str, after: str) -> None:
    write_score(tmp_path, SCORE)
    path = tmp_path / "a__b.json"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(UserError, match=r"a__b\.json is damaged \(.*\)\. Delete it, and evaluate again"):
        read_scores(tmp_path)


def test_a_score_is_current_for_its_data_mteb_and_model_only() -> None:
    assert is_current(SCORE, "d", "2", "r")
    for other in (("e", "2", "r"), ("d", "3", "r"), ("d", "2", "s")):
        assert not is_current(SCORE, *other)
    assert not is_current(None, "d", "2", "r")


def test_warnings_name_the_unusable_and_what_is_below_tfidf_as_shown() -> None:
    same = replace(SCORE, tfidf=61.504)  # 61.50 both
    assert warnings([SCORE, UNUSABLE, same]) == [
        "a/b: 61.50 is below TF-IDF (70.00), which only counts words.",
        "c: no score. Collapsed.",
    ]


def test_the_json_has_no_mean_over_missing_scores_and_no_pairs() -> None:
    tree = summary("t", SCORE.model, [SCORE, UNUSABLE])
    assert tree["mean"] is None
    assert mean([SCORE, SCORE]) == 61.5
    assert tree["model"] == {"name": "local/x", "revision": "r"}
    assert not any("pairs" in task for task in _tasks(tree))
    assert [("unusable" in task, "tfidf" in task, "score" in task) for task in _tasks(tree)] == [
        (False, True, True),
        (True, False, True),
    ]
