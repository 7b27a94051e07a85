"""The verdict of a page: better or worse than before training and than TF-IDF, by how much; and the tables below it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from unit.report.made_runs import export, make_run, write_lines

from unsee_dist.config import load
from unsee_dist.evaluation.intervals import ScoreDifference
from unsee_dist.report import curves, facts, headline
from unsee_dist.report.headline import Tone
from unsee_dist.report.pairs import PairsView
from unsee_dist.report.plots import Plot
from unsee_dist.report.run_files import open_run

BASELINE = {"dev/sts": 75.46}


def pairs(low: float, value: float, high: float) -> list[PairsView]:
    return [PairsView("dev", 1500, Plot("", "", ""), ScoreDifference(value, low, high))]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scores", "found", "words", "tone"),
    [
        ({20: 61.5}, [], "Better than before training: dev/sts 61.50, +1.50", "good"),
        ({20: 58.5}, [], "Worse than before training: dev/sts 58.50, -1.50", "bad"),
        ({20: 60.0}, [], "As good as before training: dev/sts 60.00", "even"),
        ({20: 61.5}, pairs(0.5, 1.5, 2.5), "Better than before training: dev/sts 61.50, +1.50", "good"),
        (
            {20: 61.5},
            pairs(-0.5, 1.5, 2.5),
            "No better than before training: dev/sts 61.50, +1.50, which may be chance",
            "even",
        ),
        (
            {20: 59.9},
            pairs(-0.5, -0.1, 2.5),
            "No worse than before training: dev/sts 59.90, -0.10, which may be chance",
            "even",
        ),
        ({}, [], "Not evaluated yet", "none"),
        (None, [], "Not evaluated yet", "none"),
    ],
)
def test_the_headline(
    tmp_path: Path, scores: dict[int, float] | None, found: list[PairsView], words: str, tone: Tone
) -> None:
    verdict = headline.verdict(open_run(make_run(tmp_path / "a", scores)), BASELINE, found)
    assert (verdict.headline, verdict.tone) == (words, tone)


def test_what_is_below_tfidf_is_said_and_what_is_above_too(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "a", {20: 61.5}))
    below = " ".join(headline.verdict(run, BASELINE, []).sentences)
    assert "dev/sts 61.5 is below TF-IDF (75.46), which only counts words" in below
    above = " ".join(headline.verdict(run, {"dev/sts": 50.0}, []).sentences)
    assert "above TF-IDF (50.00)" in above
    assert "TF-IDF was not measured" in " ".join(headline.verdict(run, {}, []).sentences)


def test_an_end_that_is_worse_than_before_is_said_beside_a_better_best(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "a", {10: 61.5, 40: 57.0}))
    verdict = headline.verdict(run, BASELINE, [])
    assert verdict.tone == "good"
    assert (
        "At step 40: worse than before training: dev/sts 57.00, before 60.00; best/ is of step 10."
        in verdict.sentences
    )


def test_two_equal_runs_have_no_best_one(tmp_path: Path) -> None:
    runs = [open_run(make_run(tmp_path / name, {20: 61.5}, f"run.name={name}")) for name in ("one", "two")]
    assert headline.comparison(runs, {}).headline == "one and two are equal: dev/sts 61.50"


def test_a_collapse_is_the_headline_and_advice_follows_a_harm(tmp_path: Path) -> None:
    flat = {"dev/collapsed": 1.0, "dev/std": 1e-6}
    collapsed = headline.verdict(open_run(make_run(tmp_path / "a", {20: 61.5}, **flat)), BASELINE, [])
    assert collapsed.tone == "bad"
    assert collapsed.headline == "The embeddings of all sentences are one point"
    worse = headline.verdict(open_run(make_run(tmp_path / "b", {20: 58.0})), BASELINE, [])
    assert any(sentence.startswith("Try a third of train.lr") for sentence in worse.sentences)


def test_several_runs_have_a_best_one_and_no_score_in_common_is_said(tmp_path: Path) -> None:
    one = open_run(make_run(tmp_path / "a", {20: 61.5}, "run.name=one"))
    two = open_run(make_run(tmp_path / "b", {20: 63.0}, "run.name=two"))
    bare = open_run(make_run(tmp_path / "c", None))
    assert headline.comparison([one, two], {}).headline == "two is best: dev/sts 63.00, +1.50 against one"
    assert headline.comparison([bare, bare], {}).headline == "No common score"
    rows = facts.overview([one, two, bare], BASELINE).rows
    assert [row[4] for row in rows] == ["+1.50", "+3.00", "–"]
    assert [row[5] for row in rows] == ["-13.96", "-12.46", "–"]


def test_settings_against_base_and_between_runs(tmp_path: Path) -> None:
    one = open_run(make_run(tmp_path / "a", {}, "train.lr=3e-5", "run.name=one"))
    two = open_run(make_run(tmp_path / "b", {}, "train.lr=1e-5", "run.name=two"))
    alone = {row[0]: row[1:] for row in facts.settings([one])[0].rows}
    assert alone["train.lr"] == ["3e-05", "0.0001"]
    assert "train.batch" not in alone
    between, every = facts.settings([one, two])
    assert {row[0] for row in between.rows} == {"run.name", "run.dir", "train.lr"}
    assert len(every.rows) > 40


def test_history_has_starts_their_changes_and_faults(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", {20: 61.0}, reached=30)
    start = {"step": 0, "time": 1.7e9, "ranks": 2, "changed": {}, "environment": {"host": "node-7"}}
    again = {"step": 20, "time": 1.7e9 + 60, "ranks": 1, "changed": {"data.workers": [2, 0]}}
    write_lines(folder / "history.jsonl", [start, again])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 31, "loss": 1.0, "skipped": 3, "damaged": 2}\n')
    words = [event.what for event in facts.history(open_run(folder))]
    assert words[0] == "began on 2 ranks of node-7"
    assert words[2] == "continued on 1 rank; changed: data.workers 2 → 0"
    assert "3 steps skipped" in words
    assert "2 damaged sentences replaced" in words
    assert words[-1].startswith("It was stopped before its first checkpoint")


def test_the_command_that_continues_a_run_gives_its_last_settings(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a run", {20: 61.0}, reached=30)
    with (folder / "history.jsonl").open("a") as file:
        file.write(
            '{"step": 20, "time": 2, "ranks": 1, "changed": {"data.workers": [2, 0], "data.mix": ["x y", null]}}\n'
        )
    command = facts.next_steps([open_run(folder)])[0].command
    words = shlex.split(command)
    assert words[:2] == ["unsee", "train"]
    config = load(words[2], words[3:])
    assert (config.data.workers, config.data.mix) == (0, None)


def test_what_to_do_after_a_harm_is_a_command_that_loads(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", {40: 58.0})
    export(folder, "final", 40)
    commands = [each.command for each in facts.next_steps([open_run(folder)])]
    retry = next(command for command in commands if "train.lr=" in command)
    words = shlex.split(retry)
    assert load(words[2], words[3:]).train.lr == pytest.approx(1e-4 / 3, rel=0.02)


def test_only_what_the_files_have_becomes_a_plot(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "a", {20: 61.0, 40: 62.0}))
    found = {group.title: [plot.title for plot in group.plots] for group in curves.groups([run], BASELINE)}
    assert found == {
        "Scores": ["STS"],
        "Loss": ["Loss", "Term: invariance", "Term: variance"],
        "Embeddings": ["Effective rank", "Spread (std)", "Spectrum"],
        "Target and schedule": ["Learning rate", "Gradient norm"],
        "Speed": ["Sentences a second", "Waiting for data"],
    }
    bare = open_run(make_run(tmp_path / "b", None, reached=0))
    assert all(not group.plots and group.empty for group in curves.groups([bare], {}))


def test_every_plot_of_a_score_has_the_level_before_training(tmp_path: Path) -> None:
    one = open_run(make_run(tmp_path / "a", {20: 61.0, 40: 62.0}, "run.name=one"))
    other = make_run(tmp_path / "b", {20: 61.0}, "run.name=two")
    text = (other / "metrics.jsonl").read_text().replace('"dev/sts": 60.0', '"dev/sts": 60.9')
    (other / "metrics.jsonl").write_text(text)
    for group in curves.groups([one], BASELINE):
        if group.title == "Scores":
            assert all("before 60.00" in plot.svg and "TF-IDF 75.46" in plot.unit for plot in group.plots)
    scores = next(group for group in curves.groups([one, open_run(other)], {}) if group.title == "Scores")
    assert "before (one) 60.00" in scores.plots[0].svg
    assert "before (two) 60.90" in scores.plots[0].svg
