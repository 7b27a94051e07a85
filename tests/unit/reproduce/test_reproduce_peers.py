"""Peers: what trains them, how long, at which rate; and the one sentence where a package is missing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from unit.report.made_runs import make_run
from unit.reproduce.made_experiment import made, wave

from unsee_dist.bench import sentence_trainer
from unsee_dist.bench.sentence_trainer import PEERS, check_installed, without_words
from unsee_dist.errors import UserError
from unsee_dist.report.page import render
from unsee_dist.report.run_files import open_run
from unsee_dist.reproduce.experiments import EXPERIMENTS
from unsee_dist.reproduce.page import page
from unsee_dist.reproduce.record import as_dict
from unsee_dist.reproduce.train_peer import clear, risen, seconds_of
from unsee_dist.reproduce.units import units_of

EXPERIMENT = EXPERIMENTS["peers"]


def test_each_peer_is_trained_after_the_run_that_says_how_long(tmp_path: Path) -> None:
    units = units_of(EXPERIMENT, EXPERIMENT.small, ["model.encoder=x"], 2, tmp_path)
    assert len(units) == 2 * (1 + len(PEERS))
    for place, unit in enumerate(units):
        if unit.trainer:
            ours = next(each for each in units[:place] if each.folder == unit.timed_by)
            assert (ours.arm, ours.seed) == ("unsee-vicreg", unit.seed)
            assert unit.command[:3] == ["unsee_dist.reproduce.train_peer", unit.trainer, str(unit.timed_by)]
            assert (unit.config.model.encoder, unit.config.seed) == ("x", unit.seed)
        else:
            assert unit.command[:2] == ["unsee_dist.train", "--config"]
    theirs = {unit.trainer: unit.config for unit in units if unit.trainer}
    read = {name: (each.train.batch, each.train.lr, each.model.pooling) for name, each in theirs.items()}
    assert read == {
        "simcse": (128, 5e-5, "mean"),
        "tsdae": (8, 3e-5, "cls"),
        "tsdae-mean": (8, 3e-5, "mean"),
        "ct": (128, 5e-5, "mean"),
    }


def test_the_time_of_a_run_is_that_of_its_steps(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {20: 61.0}, "train.batch=50")  # 40 steps at 100 sentences a second
    assert seconds_of(open_run(run)) == pytest.approx(40 * 50 / 100)
    with pytest.raises(UserError, match="does not say how long"):
        seconds_of(open_run(make_run(tmp_path / "none", reached=0)))


def test_a_folder_that_is_no_unfinished_training_is_left_alone(tmp_path: Path) -> None:
    own, theirs = make_run(tmp_path / "own", {20: 61.0}), tmp_path / "theirs"
    clear(own)
    assert list(own.iterdir()) == []
    clear(tmp_path / "none")
    theirs.mkdir()
    (theirs / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"theirs has files, and no config\.yaml of a run"):
        clear(theirs)
    assert (theirs / "notes.txt").read_text() == "mine"


def test_the_rate_follows_the_clock() -> None:
    assert [risen(share, 0.1) for share in (0.0, 0.05, 0.1, 0.55, 1.0)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert risen(0.0, 0.0) == 1


def test_a_package_that_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"sentence_transformers", "datasets", "accelerate"}
    monkeypatch.setattr(sentence_trainer, "find_spec", lambda name: name in found or None)
    with pytest.raises(UserError, match=r"^peers needs nltk, .*pip install \"unsee_dist\[bench\]\"$"):
        check_installed("peers")


def test_six_words_of_ten_are_deleted_and_one_is_always_left() -> None:
    pytest.importorskip("nltk")
    random.seed(0)
    words = [f"w{place}" for place in range(20)]
    kept = [without_words(" ".join(words)).split() for _ in range(300)]
    assert all(set(each) <= set(words) and each == sorted(each, key=words.index) for each in kept)
    assert sum(map(len, kept)) / 300 == pytest.approx(8, abs=0.5)
    assert without_words("alone") == "alone"
    assert without_words("") == ""


def test_the_page_and_the_json_say_what_trained_a_peer(tmp_path: Path) -> None:
    results = made(EXPERIMENT, tmp_path, lambda arm, seed, _step: 61 + len(arm) % 5 + wave(seed))
    text = render(page(results, tmp_path))
    for peer in PEERS.values():
        assert f"sentence-transformers {peer.loss}" in text
    assert "for as many seconds as our run" in text
    assert as_dict(results)["arms"]["st-ct"]["trainer"].endswith("InBatchNegatives")
