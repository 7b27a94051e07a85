"""The page of evidence says what its files say; each file is what the package's own statistics make of its seeds."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from integration.tiny import REPOSITORY
from unit.reproduce.made_experiment import made, wave

from unsee_dist.evaluation.intervals import ScoreDifference, over_seeds
from unsee_dist.reproduce.differences import Difference
from unsee_dist.reproduce.experiments import EXPERIMENTS
from unsee_dist.reproduce.record import write_results

KEPT = sorted((REPOSITORY / "docs" / "results" / "reproduce").glob("*.json"))
LIFTS = {"unsee-vicreg": 2.0, "simcse-fair": -1.0}


@pytest.fixture(scope="module")
def page() -> ModuleType:
    sys.path.insert(0, str(REPOSITORY / "docs"))
    try:
        import evidence_page
    finally:
        sys.path.pop(0)
    return evidence_page


def score(arm: str, seed: int, step: int) -> float:
    return 62 + LIFTS.get(arm, 0.0) + wave(seed) + step / 100


def written(name: str, folder: Path) -> Path:
    """An experiment's results.json as it is kept, with a file of the same that has another name."""
    kept = folder / "kept"
    kept.mkdir(exist_ok=True)
    results = made(EXPERIMENTS[name], folder / name, score)
    write_results(results, kept / f"{name}.json")
    return kept


def test_the_page_has_what_each_file_says_in_the_experiments_order(page: ModuleType, tmp_path: Path) -> None:
    written("projector", tmp_path)
    kept = written("objectives", tmp_path)
    (kept / "objectives-gpu.json").write_text((kept / "objectives.json").read_text(encoding="utf-8"))
    text = page.evidence(kept)
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## objectives", "## objectives-gpu", "## projector"]
    tree = json.loads((kept / "objectives.json").read_text(encoding="utf-8"))
    section = text.partition("\n## ")[0]
    for sentence in [tree["headline"], *tree["sentences"]]:
        assert page.text(sentence) in section
    assert "| before training | – | 60.00 |" in section
    assert "| `unsee-vicreg` | 3 | 64.46 ± 0.11 |" in section  # 62 + 2 + 0.4 and the waves of three seeds
    assert "`unsee reproduce objectives --small`, 5 arms, 3 seeds; train.steps 40" in section


def test_a_start_of_its_own_has_a_row_above_its_arms(page: ModuleType, tmp_path: Path) -> None:
    kept = written("objectives", tmp_path)
    tree = json.loads((kept / "objectives.json").read_text(encoding="utf-8"))
    tree["arms"]["byol"]["before"]["dev/sts"] = [50.0] * 3
    firsts = [row[0] for row in page.scores_rows(tree)]
    assert firsts == [
        "before training", "`unsee-vicreg`", "`unsee-barlow`", "`unsee-corinfomax`",
        "before training", "`byol`", "before training", "`simcse-fair`",
    ]  # fmt: skip


def test_a_file_of_another_experiment_is_refused(page: ModuleType, tmp_path: Path) -> None:
    kept = written("objectives", tmp_path)
    (kept / "objectives.json").rename(kept / "target.json")
    with pytest.raises(ValueError, match="of the experiment objectives"):
        page.evidence(kept)


def test_numbers_that_were_changed_by_hand_are_seen(tmp_path: Path) -> None:
    tree = json.loads((written("objectives", tmp_path) / "objectives.json").read_text(encoding="utf-8"))
    assert not list(wrong(tree))
    gap = tree["claims"][0]["scores"]["dev/sts"]
    gap["by_seed"][0] += 0.5
    assert list(wrong(tree))
    gap["by_seed"][0] -= 0.5
    gap["finding"] = "noise"
    assert list(wrong(tree))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_file_agrees_with_itself(path: Path) -> None:
    assert not list(wrong(json.loads(path.read_text(encoding="utf-8"))))


def wrong(tree: Mapping[str, Any]) -> list[str]:
    """Claims whose differences are not those of the arms' seeds, or whose intervals or words are not those of the differences."""
    found = []
    for claim in tree["claims"]:
        for name, gap in claim["scores"].items():
            place = f"{claim['arm']} against {claim['against']}, {name}"
            of_seeds, pairs = over_seeds(gap["by_seed"]), gap["over_pairs"]
            interval = [of_seeds.low, of_seeds.high] if of_seeds else None
            if interval != (gap["over_seeds"] and pytest.approx(gap["over_seeds"], abs=2e-5)):
                found.append(f"{place}: interval")
            of_pairs = ScoreDifference(math.nan, *pairs) if pairs else None
            if (
                Difference(name, tuple(gap["by_seed"]), of_seeds, of_pairs, gap["pairs"]).finding
                != gap["finding"]
            ):
                found.append(f"{place}: finding")
            arms = tree["arms"]
            ours = arms[claim["arm"]]["scores"][name]
            theirs = (
                arms[claim["arm"]]["before"]
                if claim["against"] == "before training"
                else arms[claim["against"]]["scores"]
            )
            if len(ours) == len(theirs[name]) == len(gap["by_seed"]):
                gaps = [one - other for one, other in zip(ours, theirs[name], strict=True)]
                if gap["by_seed"] != pytest.approx(gaps, abs=5e-6):
                    found.append(f"{place}: differences")
    return found
