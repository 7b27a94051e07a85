"""The page of real runs: its numbers are the run's own, and what a run lacks is said in a sentence."""

from __future__ import annotations

import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from integration import tiny as launch
from integration.evaluating import is_sentence, unsee, write_tasks
from integration.tiny import Tiny

from unsee_dist.report.run_files import open_run

DEV = "tasks/similar.tsv"


@pytest.fixture(scope="module")
def place(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tasks/, mine/ (evaluated on STS, sent to MLflow) and bare/ (evaluated on nothing)."""
    folder = tmp_path_factory.mktemp("reported")
    write_tasks(folder / "tasks")
    of_mine = [f"evaluate.sts={folder / DEV}", "track.mlflow=true"]
    for name, more in (("mine", of_mine), ("bare", [])):
        settings = [f"run.dir={folder / name}", f"run.name={name}", *more]
        env = launch.environment(MLFLOW_TRACKING_URI=f"sqlite:///{folder / 'mlflow.db'}")
        script = str(launch.REPOSITORY / launch.SCRIPT)  # artifacts go below the current folder
        launch.succeed(
            [sys.executable, script, "--config", str(tiny.config), *settings],
            cwd=folder,
            env=env,
            timeout_s=500,
        )
    return folder


class Text(HTMLParser):
    """The words of a page, and those of its tags' classes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words, self.hidden = [], 0  # type: list[str], int
        self.feed(html)

    def handle_starttag(self, tag: str, _: object) -> None:
        self.hidden += tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag == "style"

    def handle_data(self, data: str) -> None:
        if not self.hidden and data.strip():
            self.words.append(data.strip())


def page(place: Path, *runs: str, out: str = "page.html") -> str:
    output = unsee("report", *runs, "--out", out, cwd=place)
    assert output.code == 0, output.err
    return " ".join(Text((place / out).read_text(encoding="utf-8")).words)


@pytest.fixture(scope="module")
def whole(place: Path) -> str:
    return page(place, "mine")


def copy(place: Path, name: str, *without: str) -> Path:
    """A copy of mine/ that lacks some of its files."""
    folder = place / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(place / "mine", folder)
    for each in without:
        target = folder / each
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    return folder


def test_every_part_is_there_and_nothing_is_missing(whole: str) -> None:
    for title in (
        *("Scores", "Loss", "Embeddings", "Target and schedule", "Speed", "Gold pairs before and after"),
        *("Nearest neighbours", "A map", "Settings", "Environment", "History", "Next"),
    ):
        assert title in whole, title
    assert "cannot be read" not in whole
    assert "other contents" not in whole
    assert "has changed since" not in whole


def test_the_encoders_on_the_page_score_what_the_run_has_measured(place: Path, whole: str) -> None:
    run = open_run(place / "mine")
    found = re.search(r"Spearman x 100: (-?[\d.]+) → (-?[\d.]+)", whole)
    assert found is not None
    assert float(found[1]) == pytest.approx(run.before["dev/sts"], abs=0.0051)
    assert float(found[2]) == pytest.approx(run.best["dev/sts"], abs=0.0051)
    assert found[1] != found[2]
    gap = re.search(r"On similar: ([+-][\d.]+) against before training", whole)
    assert gap is not None
    assert float(gap[1]) == pytest.approx(run.best["dev/gain"], abs=0.0051)


def test_tfidf_is_what_the_run_has_compared_with(place: Path, whole: str) -> None:
    from unsee_dist.evaluation.sts_files import load_pairs
    from unsee_dist.metrics.tfidf import tfidf_spearman

    assert f"TF-IDF {tfidf_spearman(load_pairs(place / DEV)):.2f}" in whole


def test_a_run_has_its_page_in_its_folder_and_in_mlflow(place: Path) -> None:
    assert (place / "mine" / "report.html").is_file()
    assert not (place / "bare" / "report.html").exists()  # track.mlflow is off
    (sent,) = [path for path in place.rglob("report.html") if "artifacts" in path.parts]
    assert sent.read_bytes() == (place / "mine" / "report.html").read_bytes()
    words = " ".join(Text(sent.read_text(encoding="utf-8")).words)
    assert "All its steps are trained." in words
    assert "unsee report" in words


def test_two_runs_side_by_side(place: Path) -> None:
    copy(place, "twin")
    found = page(place, "mine", "twin")
    assert "2 runs" in found
    assert (
        "No setting differs" in found
    )  # a copy: its name is the other's, so they are called by their folders
    assert "twin" in found
    evaluated_otherwise = page(place, "mine", "bare")
    assert "evaluated on different sets" in evaluated_otherwise
    assert "evaluate.sts" in evaluated_otherwise


def test_a_run_that_is_judged_on_nothing(place: Path) -> None:
    found = page(place, "bare")
    assert "It has no score, since evaluate.sts and evaluate.retrieval are absent" in found
    assert "Nearest neighbours" in found
    assert "A map" in found


def test_a_half_finished_run_shows_its_checkpoint(place: Path) -> None:
    copy(place, "half", "final", "best")
    found = page(place, "half")
    assert "It was stopped; the same command continues it." in found
    assert "after: checkpoint step-00000006" in found
    assert "unsee train half/config.yaml" in found


@pytest.mark.parametrize(
    ("without", "sentence"),
    [
        (("final", "best", "checkpoints"), "There is no encoder after training yet"),
        (("metrics.jsonl",), "Not evaluated yet"),
        (("history.jsonl",), "It was not recorded"),
        (("config.yaml",), None),
    ],
)
def test_what_is_missing_is_said(place: Path, without: tuple[str, ...], sentence: str | None) -> None:
    copy(place, "less", *without)
    if sentence is None:
        is_sentence(unsee("report", "less", cwd=place), "less is not a run's folder")
    else:
        assert sentence in page(place, "less")


def test_damaged_files_and_changed_sets_are_said(place: Path) -> None:
    folder = copy(place, "hurt")
    (folder / "best" / "model.safetensors").write_bytes(b"x")
    manifest = folder / "checkpoints" / "step-00000006" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"step": 6', '"step": 5', 1))
    found = page(place, "hurt")
    assert "manifest.json cannot be read (its contents were changed)" in found
    assert "best is a half-written export: model.safetensors is cut off" in found
    table = place / DEV
    kept = table.read_text()
    try:
        table.write_text(kept + "the old house .\tthe old river .\t3\n")
        assert "evaluate.sts has other contents than when the run was evaluated" in page(place, "mine")
        table.unlink()
        assert "similar.tsv is not a file" in page(place, "mine")
    finally:
        table.write_text(kept)


def test_mistakes_are_one_sentence(place: Path) -> None:
    is_sentence(unsee("report", "nowhere", cwd=place), "nowhere does not exist")
    is_sentence(unsee("report", "mine", "mine", cwd=place), "mine is given twice")
    is_sentence(unsee("report", *["mine"] * 9, cwd=place), "twice")
    (place / "mine.html").write_text("mine")
    is_sentence(
        unsee("report", "bare", "--out", "mine.html", cwd=place), "not a page that unsee report wrote"
    )
    is_sentence(unsee("report", cwd=place), "unsee report needs RUN")
