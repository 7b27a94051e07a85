"""What is claimed: a difference only where its interval leaves out 0; and the page and results.json that say it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from unit.reproduce.made_experiment import NO_TASKS, made, wave

from unsee_dist.errors import UserError
from unsee_dist.evaluation.intervals import over_seeds
from unsee_dist.report.page import render
from unsee_dist.reproduce import vision
from unsee_dist.reproduce.command import Request, find, with_evaluation
from unsee_dist.reproduce.differences import difference
from unsee_dist.reproduce.experiment import BEFORE, Claim
from unsee_dist.reproduce.experiments import EXPERIMENTS
from unsee_dist.reproduce.page import page
from unsee_dist.reproduce.record import write_results
from unsee_dist.reproduce.results import Results
from unsee_dist.reproduce.sentences import claimed, headline, sentences, troubles

OBJECTIVES = EXPERIMENTS["objectives"]
LIFTS = {"unsee-vicreg": 2.0, "unsee-barlow": 0.1, "unsee-corinfomax": -2.0, "byol": 0.0, "simcse-fair": 0.0}


def score(arm: str, seed: int, step: int) -> float:
    """best/ is at step 40. Barlow's gain is smaller than its seeds differ."""
    noise = 4 * wave(3 * seed) if arm == "unsee-barlow" else wave(seed)
    return 62 + LIFTS[arm] + noise + step / 100


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return made(OBJECTIVES, tmp_path, score)


def test_the_interval_over_seeds_is_students() -> None:
    gaps = np.random.default_rng(0).normal(0.3, 0.5, size=5)
    found = over_seeds(gaps.tolist())
    theirs = ttest_1samp(gaps, 0.0).confidence_interval(0.95)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((gaps.mean(), theirs.low, theirs.high))
    assert over_seeds([1.0]) is None


def test_the_interval_over_seeds_covers_as_often_as_it_says() -> None:
    draws = np.random.default_rng(1).normal(0.0, 1.0, size=(2000, 3))
    found = [over_seeds(draw.tolist()) for draw in draws]
    covered = np.mean([of is not None and of.low < 0 < of.high for of in found])
    assert covered == pytest.approx(0.95, abs=0.015)


def test_a_difference_is_claimed_only_outside_the_noise(results: Results) -> None:
    findings = {
        arm: difference(results, Claim(arm, "simcse-fair"), "dev/sts").finding
        for arm in LIFTS
        if arm != "simcse-fair"
    }
    assert findings == {
        "unsee-vicreg": "better",
        "unsee-barlow": "noise",
        "unsee-corinfomax": "worse",
        "byol": "noise",  # equal in every seed
    }
    words = {arm: claimed(results, Claim(arm, "simcse-fair")) for arm in findings}
    assert "better on dev/sts at best/ (+2.00, 3 seeds +2.00 to +2.00)" in words["unsee-vicreg"]
    assert "inside the noise on dev/sts" in words["unsee-barlow"]
    assert "worse on dev/sts" in words["unsee-corinfomax"]


def test_against_before_is_against_what_each_run_began_with(results: Results) -> None:
    found = difference(results, Claim("byol", BEFORE), "dev/sts")
    assert found.gaps == pytest.approx([score("byol", seed, 40) - 60.0 for seed in range(3)])
    assert found.finding == "better"


def test_one_seed_claims_nothing(tmp_path: Path) -> None:
    alone = made(OBJECTIVES, tmp_path, score, seeds=1)
    assert headline(alone) == "One seed: numbers, and no claim"
    assert "nothing to claim from one seed on dev/sts" in claimed(alone, Claim("unsee-vicreg", "simcse-fair"))


def test_a_score_that_chose_best_is_said_to_be_high(results: Results) -> None:
    assert any("dev/sts also chose best/" in sentence for sentence in sentences(results))


def test_a_fall_after_best_is_seen_at_the_end(tmp_path: Path) -> None:
    """As without a target: better at best/ and worse at the end. best/ does not hide it."""

    def falls(arm: str, seed: int, step: int) -> float:
        return 63 + wave(seed) + ((2.0 if step == 20 else -2.0) if arm == "byol" else 0.0)

    results = made(OBJECTIVES, tmp_path, falls)
    said = claimed(results, Claim("byol", "simcse-fair"))
    assert "better on dev/sts at best/ (+2.00," in said
    assert "worse on dev/sts at the end (-2.00," in said
    assert results.before("byol", "dev/sts at the end") == results.before("byol", "dev/sts")


def test_a_collapse_is_said(tmp_path: Path) -> None:
    fallen = made(OBJECTIVES, tmp_path, score, 1, **{"dev/collapsed": 1.0})
    assert troubles(fallen)[0].startswith("unsee-vicreg has collapsed at its end in 1 of 1 seeds: ")


def test_results_json_has_every_number_and_no_path(results: Results, tmp_path: Path) -> None:
    write_results(results, tmp_path / "results.json")
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    tree = json.loads(text)
    assert str(tmp_path) not in text
    assert tree["arms"]["byol"]["scores"]["dev/sts"] == pytest.approx(
        [score("byol", s, 40) for s in range(3)], abs=1e-6
    )
    assert len(tree["runs"]) == 15
    assert tree["runs"][0]["best_step"] == 40
    assert tree["runs"][0]["settings"]["evaluate.sts"] == "pairs.tsv"
    claim = next(
        each for each in tree["claims"] if (each["arm"], each["against"]) == ("unsee-vicreg", "simcse-fair")
    )
    assert claim["scores"]["dev/sts"]["by_seed"] == pytest.approx([2.0] * 3)


def test_the_page_says_what_the_sentences_say(results: Results, tmp_path: Path) -> None:
    text = render(page(results, tmp_path))
    assert OBJECTIVES.question in text
    assert "unsee-barlow against simcse-fair: inside the noise" in text
    assert (
        text.count("<svg") == len(OBJECTIVES.charts) + 1
    )  # the scores at best/ and at the end, one beside the other
    assert "64.46 ± 0.11" in text  # 62 + 2 + 0.4 and the waves of three seeds


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name != vision.NAME])
def test_every_experiment_has_a_page(name: str, tmp_path: Path) -> None:
    experiment = EXPERIMENTS[name]
    found = made(
        experiment, tmp_path, lambda arm, seed, step: 61 + len(arm) % 7 + wave(seed) + step / 100, 2,
        **{"dev/alignment": 0.3, "dev/distance": 0.1, "dev/spectrum/16": 0.01, "dev/spectrum/128": 0.001},
    )  # fmt: skip
    text = render(page(found, tmp_path))
    assert text.count("<svg") >= len(experiment.charts)
    assert all(arm.name in text for arm in experiment.small.arms)


def test_what_judges_is_the_users_or_the_corpuss_or_a_sentence(tmp_path: Path) -> None:
    def asked(*overrides: str) -> list[str]:
        return with_evaluation(Request("objectives", overrides, tmp_path, tasks=NO_TASKS))

    assert asked("evaluate.sts=a.tsv") == ["evaluate.sts=a.tsv"]
    with pytest.raises(UserError, match="nothing evaluates"):
        asked(f"data.shards={tmp_path}")
    (tmp_path / "dev.tsv").write_text("query\tanswer\n", encoding="utf-8")
    assert asked(f"data.shards={tmp_path}")[-1] == f"evaluate.retrieval={tmp_path / 'dev.tsv'}"


def test_a_misspelt_experiment_is_named() -> None:
    with pytest.raises(UserError, match="did you mean objectives"):
        find("objektives")
