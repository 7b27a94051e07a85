"""Runs evaluated, compared and exported: checkpoints kept apart, seeds in one row, cards filled from the run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from integration import tiny as launch
from integration.evaluating import Output, is_sentence, loaded, unsee, write_model, write_tasks
from integration.hub import TOKEN, hub
from integration.tiny import BIN, Tiny, corpus


@pytest.fixture(scope="module")
def place(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tasks/ (two of them), mine-0/ and mine-1/ (runs of two seeds), and point/ and nan/."""
    folder = tmp_path_factory.mktemp("runs")
    write_tasks(folder / "all")
    (folder / "tasks").mkdir()
    for name in ("similar", "topics"):
        (folder / "all" / f"{name}.tsv").rename(folder / "tasks" / f"{name}.tsv")
    for name in ("point", "nan"):
        write_model(folder / name, tiny, name)
    training = [
        launch.start(launch.command("python", 1, tiny.config, f"run.dir={folder}/mine-{seed}", f"run.name=mine-{seed}",
                                    f"seed={seed}", f"evaluate.sts={folder}/tasks/similar.tsv"))
        for seed in (0, 1)
    ]  # fmt: skip
    for process in training:
        done = launch.finish(process, timeout_s=500)
        assert done.returncode == 0, done.stderr
    return folder


def evaluate(place: Path, model: str) -> dict:
    output = unsee("evaluate", model, "--tasks", "tasks", "--json", cwd=place)
    assert output.code in (0, 4), output.err
    return json.loads(output.out)


def test_two_checkpoints_of_a_run_get_two_scores_and_its_export_the_last_ones(place: Path) -> None:
    found = {name: evaluate(place, f"mine-0/checkpoints/step-0000000{name}") for name in (3, 6)}
    assert found[3]["model"]["revision"] != found[6]["model"]["revision"]
    for three, six in zip(found[3]["tasks"], found[6]["tasks"], strict=True):
        if three["task"] == "similar":
            assert three["score"] != six["score"]
    final = evaluate(place, "mine-0/final")
    assert final["mean"] == pytest.approx(found[6]["mean"], abs=1e-6)
    assert len({folder.name for folder in (place / "mine-0" / "evaluation").iterdir()}) == 3
    cached = {
        path.parent for path in (place / "mine-0" / "evaluation").rglob("mteb/results/*/*/similar.json")
    }
    assert len(cached) == 3, "mteb's own cache tells them apart, too"


def test_sts_in_training_is_mtebs_sts_of_the_export(place: Path) -> None:
    evaluations = [line for line in launch.lines(place / "mine-0" / "metrics.jsonl") if "dev/sts" in line]
    final = evaluate(place, "mine-0/final")
    score = {record["task"]: record["score"] for record in final["tasks"]}["similar"]
    assert score == pytest.approx(evaluations[-1]["dev/sts"], abs=1e-3)
    kept, best = [line for line in evaluations if line["dev/best"]][-1], evaluate(place, "mine-0")
    assert kept["step"] > 0
    assert best["model"]["revision"].startswith(f"best-step{kept['step']}-")
    score = {record["task"]: record["score"] for record in best["tasks"]}["similar"]
    assert score == pytest.approx(kept["dev/sts"], abs=1e-3)
    apart = [
        line["distance"] for line in launch.lines(place / "mine-0" / "metrics.jsonl") if "distance" in line
    ]
    assert [evaluations[0]["dev/distance"], evaluations[-1]["dev/distance"]] == [0, pytest.approx(apart[-1])]
    assert apart[-1] > 0


def test_seeds_are_one_row_and_the_comparison_is_written_three_ways(place: Path) -> None:
    for model in ("mine-0", "mine-1", "tfidf", "point"):
        evaluate(place, model)
    output = unsee("compare", "tfidf", "mine-0", "mine-1", "--out", "out/seen", "--json", cwd=place)
    assert output.code == 0, output.err
    found = json.loads(output.out)
    best = [
        {r["task"]: r["score"] for r in evaluate(place, name)["tasks"]}["similar"]
        for name in ("mine-0", "mine-1")
    ]
    assert found["scores"]["mine/best"]["similar"] == best
    assert set(found["scores"]) == {"tfidf", "mine/best"}
    assert found == json.loads((place / "out" / "seen.json").read_text())
    mean = f"{np.mean(best):.2f} ± {np.std(best, ddof=1):.2f}"
    assert mean in (place / "out" / "seen.md").read_text()
    assert (place / "out" / "seen.png").read_bytes().startswith(b"\x89PNG")
    gap = found["differences"]["mine/best"]["similar"]
    assert gap["low"] < gap["value"] < gap["high"]
    assert "mine/best against tfidf (2 seeds and 1 seed)" in found["sentences"][0]


def test_a_collapsed_encoder_is_not_compared(place: Path) -> None:
    evaluate(place, "tfidf")
    evaluate(place, "point")
    output = unsee("compare", "tfidf", "point", cwd=place)
    assert "point cannot be compared: collapsed" in output.out
    assert re.search(r"point +1 +– +– +–", output.out)


def test_two_folders_of_one_name_are_two_rows(place: Path, tiny: Tiny) -> None:
    for parent, change in (("a", "none"), ("b", "random")):
        write_model(place / parent / "twin", tiny, change)
        evaluate(place, f"{parent}/twin")
    found = json.loads(unsee("compare", "a/twin", "b/twin", "--json", "--out", "v1.2", cwd=place).out)
    first, second = found["scores"].values()
    assert first["similar"] != second["similar"]
    assert json.loads((place / "v1.2.json").read_text()) == found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "mine-0"], ["two or more"]),
        (["compare", "tfidf", "mine-0/checkpoints/step-00000003", "nan"], ["nan has no scores yet", "unsee evaluate nan"]),
        (["compare", "tfidf", "nowhere/model"], ["nowhere/model", "Hub"]),
        (["export", "nowhere", "--out", "o"], ["nowhere is not a folder"]),
        (["export", "mine-0", "--out", "tasks"], ["--out tasks", "not an export"]),
        (["export", "tasks", "--out", "o"], ["tasks is not a model"]),
        (["export", "mine-0", "--out", "pushed", "--push", "nobody/mine"], ["--push nobody/mine", "pushed is written"]),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence(place: Path, arguments: list[str], words: list[str]) -> None:
    evaluate(place, "tfidf")
    evaluate(place, "mine-0/checkpoints/step-00000003")
    is_sentence(unsee(*arguments, cwd=place), *words)


def test_a_pushed_export_is_what_others_load_by_its_name(place: Path, tmp_path: Path) -> None:
    with hub(tmp_path) as (url, _):
        network = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1"}
        env = launch.environment(HF_HOME=str(tmp_path / "home"), **network)
        command = [
            str(BIN / "unsee"),
            "export",
            "mine-0",
            "--out",
            str(tmp_path / "mine"),
            "--push",
            "me/mine",
        ]
        refused = launch.run(command, cwd=place, env=env)
        assert refused.returncode == 2, refused.stderr
        assert "--push me/mine failed" in refused.stderr
        assert "hf auth login" in refused.stderr
        assert not (tmp_path / "models").exists()
        launch.succeed(command, cwd=place, env=env | {"HF_TOKEN": TOKEN})
        texts = corpus(20)
        script = (
            "import sys, numpy; from sentence_transformers import SentenceTransformer as S;"
            f"numpy.save(sys.argv[1], S('me/mine').encode({texts!r}))"
        )
        launch.succeed([sys.executable, "-c", script, str(tmp_path / "theirs.npy")], env=env)
    assert {path.name for path in (tmp_path / "models/me/mine").iterdir()} == {
        path.name for path in (tmp_path / "mine").iterdir()
    }
    ours = loaded(tmp_path / "mine").encode(texts)
    np.testing.assert_allclose(np.load(tmp_path / "theirs.npy"), ours, atol=1e-6)


def test_a_damaged_checkpoint_is_refused(place: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(place / "mine-1", tmp_path / "mine")
    (weights,) = (tmp_path / "mine" / "checkpoints" / "step-00000003").glob("rank-*")
    weights.write_bytes(weights.read_bytes()[:-100])
    output = unsee(
        "evaluate", "mine/checkpoints/step-00000003", "--tasks", str(place / "tasks"), cwd=tmp_path
    )
    is_sentence(output, "damaged", weights.name)


@pytest.fixture(scope="module")
def given(place: Path) -> Path:
    evaluate(place, "mine-0")
    output = unsee("export", "mine-0", "--out", "given", cwd=place)
    assert output.code == 0, output.err
    return place / "given"


def test_an_export_is_the_runs_encoder_and_replaces_an_older_one(place: Path, given: Path) -> None:
    sentences = ["the old river", "a bright garden near the house ."]
    np.testing.assert_array_equal(
        loaded(given).encode(sentences), loaded(place / "mine-0" / "best").encode(sentences)
    )
    again: Output = unsee("export", "mine-0/checkpoints/step-00000003", "--out", "given2", cwd=place)
    assert again.code == 0, again.err
    assert unsee("export", "mine-0/final", "--out", "given2", cwd=place).code == 0
    np.testing.assert_array_equal(
        loaded(place / "given2").encode(sentences), loaded(place / "mine-0" / "final").encode(sentences)
    )
    assert not [path for path in place.iterdir() if path.name.startswith(".")]


def test_the_card_says_what_the_run_was_and_names_no_folder_of_the_machine(place: Path, given: Path) -> None:
    text = (given / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    results = {result["dataset"]["name"]: result for result in front["model-index"][0]["results"]}
    scores = {record["task"]: record["score"] for record in evaluate(place, "mine-0")["tasks"]}
    assert {name: result["metrics"][0]["value"] for name, result in results.items()} == {
        name: round(score, 3) for name, score in scores.items()
    }
    manifest = json.loads((place / "mine-0/checkpoints/step-00000006/manifest.json").read_text())
    for word in (
        "vicreg",
        manifest["identity"]["corpus"],
        "effective rank",
        "SentenceTransformer(",
        "AutoModel",
        "seed 0",
    ):
        assert word in text
    assert str(place.parent) not in text
    assert not re.search(r"[ '\"]/(tmp|work|home|root)/", text)


def test_the_plain_script_of_the_card_gives_the_same_vectors(given: Path) -> None:
    script = (given / "README.md").read_text().split("```python\n")[2].split("```")[0]
    names: dict = {}
    exec(script.replace("path/of/this/folder", str(given)), names)
    ours = loaded(given).encode(["A first sentence.", "A second one."])
    np.testing.assert_allclose(names["vectors"].numpy(), ours, atol=1e-6)


@pytest.mark.slow
def test_onnx_with_pooling_inside_is_what_sentence_transformers_gives(place: Path, given: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    from transformers import AutoTokenizer

    output = unsee("export", "mine-0", "--out", "onnx", "--onnx", cwd=place)
    assert output.code == 0, output.err
    session = runtime.InferenceSession(place / "onnx" / "model.onnx")
    sentences = ["the old river follows a bright garden .", "the house", "a green harbour near the island ."]
    batch = AutoTokenizer.from_pretrained(place / "onnx")(sentences, padding=True, return_tensors="np")
    feed = {name: batch[name] for name in ("input_ids", "attention_mask")}
    vectors = session.run(None, feed)[0]
    np.testing.assert_allclose(vectors, loaded(given).encode(sentences), atol=1e-4)
    assert np.abs(vectors - np.roll(vectors, 1, axis=0)).max() > 1e-2  # the case can tell
