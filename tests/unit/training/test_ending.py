"""The end of a run: what it offers, what it warns of, and what it names as the next step."""

from __future__ import annotations

from pathlib import Path

import pytest

from unsee_dist.training.ending import Ending
from unsee_dist.training.progress import Best, Progress

GOOD = {"dev/sts": 71.0, "dev/gain": 1.27, "dev/std": 0.9, "dev/effective_rank": 80.0, "dev/collapsed": 0.0}
WORSE = GOOD | {"dev/sts": 68.99, "dev/gain": -0.74}
COLLAPSED = GOOD | {"dev/sts": -1.9, "dev/collapsed": 1.0, "dev/effective_rank": 1.2, "dev/std": 0.05}


def ended(folder: Path, best: dict[str, float] | None, last: dict[str, float]) -> Ending:
    chosen = Best("dev/sts", best["dev/sts"], 60, best) if best else None
    for name in ("best", "final") if best else ("final",):
        (folder / name).mkdir()
    progress = Progress(
        step=90, updates=90, evaluated=90, best=chosen, before={"dev/sts": 69.73}, scores=last
    )
    return Ending(progress, folder, "my-encoder")


def test_a_good_run_offers_best_and_final_and_says_what_they_are(tmp_path: Path) -> None:
    end = ended(tmp_path, GOOD, GOOD)
    assert end.folders == {
        "best": "the best evaluation after training began, of step 60, dev/sts 71.00",
        "final": "the last step, 90, dev/sts 71.00",
    }
    assert list(end.columns) == ["before", "best (step 60)", "final"]
    assert end.next == [f"SentenceTransformer('{tmp_path}/best')"]
    assert (end.warnings, end.verdict) == ([], "better than before training by 1.270")


def test_a_run_that_made_its_encoder_worse_says_so_and_what_to_try(tmp_path: Path) -> None:
    end = ended(tmp_path, WORSE, WORSE)
    (warning,) = end.warnings
    assert warning.startswith(
        "best/ is worse than before training: dev/sts 68.99, before 69.73. Try a third of train.lr"
    )
    assert end.next == [
        f"my-encoder is the better encoder; SentenceTransformer('{tmp_path}/best') is what training made of it"
    ]
    assert end.verdict == "worse than before training: dev/sts 68.99, before 69.73"


def test_a_run_that_collapsed_offers_best_alone(tmp_path: Path) -> None:
    end = ended(tmp_path, GOOD, COLLAPSED)
    assert list(end.folders) == ["best"]
    assert end.warnings == [f"final/ has collapsed and cannot be used; best/ is {end.folders['best']}"]
    assert "final/ (collapsed)" in end.contents()


def test_a_run_that_collapsed_before_any_best_offers_nothing(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()  # of somebody else: this run has none
    end = ended(tmp_path, None, COLLAPSED)
    assert (end.folders, end.next) == ({}, [])
    assert end.warnings[0].startswith("this run has no usable encoder. Try a third of train.lr")
    assert end.verdict == "the embeddings have collapsed (effective rank 1.2, std 0.05)"


@pytest.mark.parametrize("name", ["best", "final"])
def test_a_folder_that_is_gone_is_not_offered(tmp_path: Path, name: str) -> None:
    end = ended(tmp_path, GOOD, GOOD)
    (tmp_path / name).rmdir()
    assert name not in end.folders
