"""A collapsed, a broken and a random encoder through every command: a reason each, and no number that looks like success."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from integration import tiny as launch
from integration.evaluating import is_sentence, loaded, unsee
from integration.tiny import Tiny


def train(tiny: Tiny, place: Path, encoder: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Three steps from an encoder that learn nothing: what it is at the start, it is at the end."""
    overrides = [
        f"run.dir={place}/run-{encoder}",
        f"model.encoder={place}/{encoder}",
        "train.lr=1e-12",
        *more,
    ]
    overrides += [f"evaluate.sts={place}/tasks/similar.tsv", "train.steps=3"]
    return launch.run(launch.command("python", 1, tiny.config, *overrides), timeout_s=500)


@pytest.mark.slow
def test_training_from_a_point_says_so_and_names_nothing_best(tiny: Tiny, place: Path) -> None:
    done = train(tiny, place, "point")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("COLLAPSED: all embeddings are one point") == 2
    assert "warning: the embeddings of all sentences are one point" in done.stderr
    assert not (place / "run-point" / "best").exists()
    assert [
        line["dev/sts"] for line in launch.lines(place / "run-point/metrics.jsonl") if "dev/sts" in line
    ] == [None] * 2
    is_sentence(
        unsee("export", "run-point", "--out", "given", cwd=place), "run-point is not exported", "one point"
    )
    assert not (place / "given").exists()


@pytest.mark.slow
def test_what_the_guard_calls_collapsed_is_never_best(tiny: Tiny, place: Path) -> None:
    """A bound above the std that this encoder has stands for one whose cosines differ in the sixth digit."""
    done = train(tiny, place, "good", "guard.std=2", "evaluate.every=1")
    assert done.returncode == 0, done.stderr
    assert "The embeddings have collapsed" in done.stderr
    assert "best so far" not in done.stderr
    assert not (place / "run-good" / "best").exists()


@pytest.mark.slow
def test_training_from_broken_weights_is_refused(tiny: Tiny, place: Path) -> None:
    done = train(tiny, place, "nan")
    assert done.returncode == 2
    assert "has weights that are not finite" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "run-nan" / "final").exists()


@pytest.mark.slow
def test_training_from_random_weights_ends_below_tfidf(tiny: Tiny, place: Path) -> None:
    done = train(tiny, place, "random")
    assert done.returncode == 0, done.stderr
    assert "TF-IDF" in done.stderr
    assert "is below TF-IDF" in done.stderr
    output = unsee(
        "export", "run-random", "--out", "given-random", cwd=place
    )  # no export knows what is random,
    assert output.code == 0, output.err
    evaluated = unsee("evaluate", "run-random", "--tasks", "tasks", cwd=place)
    assert "is below TF-IDF" in evaluated.out
    assert unsee("export", "run-random", "--out", "given-random", cwd=place).code == 0
    assert (
        "is below TF-IDF" in (place / "given-random" / "README.md").read_text()
    )  # but its card says what it scored


@pytest.mark.parametrize(("name", "word"), [("point", "one point"), ("nan", "not finite")])
def test_an_unusable_encoder_is_not_exported(place: Path, name: str, word: str) -> None:
    is_sentence(unsee("export", name, "--out", f"given-{name}", cwd=place), f"{name} is not exported", word)
    assert not (place / f"given-{name}").exists()
    assert not [path for path in place.iterdir() if path.name.startswith(".export")]


def test_what_an_export_looks_at_tells_a_sound_encoder_from_one_on_a_line(
    place: Path, tmp_path: Path
) -> None:
    """The control: the same weights pass, and fail once all embeddings lie on one line."""
    from safetensors.numpy import load_file, save_file

    assert unsee("export", "good", "--out", str(tmp_path / "sound"), cwd=place).code == 0
    shutil.copytree(place / "good", tmp_path / "line")
    state = load_file(tmp_path / "line" / "model.safetensors")
    last = max(name for name in state if name.endswith("output.LayerNorm.weight") and "attention" not in name)
    state[last] = np.where(np.arange(len(state[last])) == 0, state[last], 0).astype(np.float32)
    bias = last.replace("weight", "bias")
    state[bias] = np.random.default_rng(0).normal(size=len(state[bias])).astype(np.float32)
    save_file(state, tmp_path / "line" / "model.safetensors", metadata={"format": "pt"})
    assert np.ptp(loaded(tmp_path / "line").encode(["the house", "the old river"])[:, 0]) > 1e-3
    is_sentence(unsee("export", str(tmp_path / "line"), "--out", "given-line", cwd=place), "one line")


def test_a_comparison_has_no_number_for_the_unusable_and_names_who_is_below_tfidf(
    place: Path,
) -> None:
    for name in ("good", "random", "point", "nan", "tfidf"):
        assert unsee("evaluate", name, "--tasks", "tasks", "--json", cwd=place).code == (
            4 if name in ("point", "nan") else 0
        )
    output = unsee("compare", "tfidf", "good", "random", "point", "nan", "--json", "--out", "seen", cwd=place)
    assert output.code == 0, output.err
    found = json.loads(output.out)
    for name in ("point", "nan"):
        assert set(found["scores"][name].values()) == {None}
        assert found["differences"][name] == {}
        assert any(f"{name} cannot be compared" in sentence for sentence in found["sentences"])
    (below,) = [sentence for sentence in found["sentences"] if sentence.startswith("Below TF-IDF")]
    assert below.endswith("which only counts words, on similar: good, random.")
    assert (place / "seen.md").read_text().count("| – |") >= 2
