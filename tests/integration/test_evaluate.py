"""`unsee evaluate`: what is evaluated again and what is not; no number for the unusable; mistakes are sentences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from integration.evaluating import TASKS, is_sentence, loaded, table, unsee, write_model
from integration.tiny import Tiny


def test_every_kind_of_task_is_evaluated_by_its_group(evaluated: dict) -> None:
    assert {record["task"] for record in evaluated["tasks"]} == set(TASKS)
    assert len(evaluated["groups"]) == 6
    assert evaluated["mean"] == pytest.approx(np.mean([record["score"] for record in evaluated["tasks"]]))
    assert "mteb 2." in evaluated["title"]
    assert "local" in evaluated["title"]
    assert all(record["geometry"]["effective_rank"] > 2 for record in evaluated["tasks"])


def test_a_score_on_disk_is_not_measured_again_and_shards_add_up_to_the_whole(
    place: Path, tiny: Tiny
) -> None:
    write_model(place / "again", tiny, "random", seed=5)
    first = unsee("evaluate", "again", "--tasks", "tasks", "--shard", "1/2", "--json", cwd=place)
    second = unsee("evaluate", "again", "--tasks", "tasks", "--shard", "2/2", "--json", cwd=place)
    done = [record["task"] for output in (first, second) for record in json.loads(output.out)["tasks"]]
    assert sorted(done) == sorted(TASKS)
    whole = unsee("evaluate", "again", "--tasks", "tasks", "--json", cwd=place)
    assert "1/7" not in whole.err, "a task was evaluated again"
    scores = {
        record["task"]: record for output in (first, second) for record in json.loads(output.out)["tasks"]
    }
    assert {record["task"]: record for record in json.loads(whole.out)["tasks"]} == scores


def test_another_encoder_in_the_same_folder_and_a_changed_file_are_evaluated_anew(
    place: Path, tiny: Tiny
) -> None:
    alone = place / "alone"
    alone.mkdir()
    table(alone / "s.tsv", ["sentence1", "sentence2", "score"], PAIRS)
    before = evaluate_one(place, write_model(place / "moving", tiny), alone)
    write_model(place / "moving", tiny, "random", seed=3)
    after = evaluate_one(place, place / "moving", alone)
    assert before["model"]["revision"] != after["model"]["revision"]
    assert before["mean"] != after["mean"]
    table(alone / "s.tsv", ["sentence1", "sentence2", "score"], [*PAIRS[:-1], (*PAIRS[-1][:2], 9)])
    changed = evaluate_one(place, place / "moving", alone)
    assert changed["mean"] != after["mean"]


PAIRS = [(f"the old {a} follows a green {b}", f"the {b} near the {a}", i % 4) for i, (a, b) in enumerate(
    [("river", "house"), ("garden", "engine"), ("letter", "window"), ("bridge", "doctor"), ("forest", "island"),
     ("machine", "teacher"), ("harbour", "mountain"), ("house", "garden"), ("doctor", "river")])]  # fmt: skip


def evaluate_one(place: Path, model: Path, tasks: Path) -> dict:
    output = unsee("evaluate", str(model), "--tasks", str(tasks), "--json", cwd=place)
    assert output.code == 0, output.err
    return json.loads(output.out)


@pytest.mark.parametrize(("name", "word"), [("point", "one point"), ("nan", "not finite")])
def test_an_unusable_encoder_gets_a_reason_and_no_number(place: Path, name: str, word: str) -> None:
    output = unsee("evaluate", name, "--tasks", "tasks", cwd=place)
    assert output.code == 4
    assert output.out.count(word) == len(TASKS)
    found = json.loads(unsee("evaluate", name, "--tasks", "tasks", "--json", cwd=place).out)
    assert [record["score"] for record in found["tasks"]] == [None] * len(TASKS)
    assert found["mean"] is None
    assert not any("pairs" in record for record in found["tasks"])


def test_mteb_alone_would_have_scored_the_collapsed_encoder(place: Path) -> None:
    """The control: without the check, a point gets numbers on classification and clustering."""
    from unsee_dist.evaluation import mteb_suite
    from unsee_dist.evaluation.local_tasks import local_tasks

    class NoCheck(mteb_suite.EmbeddingCheck):
        def add(self, *_: object) -> None:
            pass

    model, found = loaded(place / "point"), {}
    for task in local_tasks(place / "tasks"):
        if task.name in ("intents", "topics"):
            encoder = mteb_suite.Encoder(model.encode, "local/point", "0")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(mteb_suite, "EmbeddingCheck", NoCheck)
                found[task.name] = mteb_suite.evaluate_task(mteb_suite.local(task), encoder, None).score
    assert found["intents"] > 20  # a third of three labels


def test_a_random_encoder_below_tfidf_gets_a_warning(place: Path) -> None:
    output = unsee("evaluate", "random", "--tasks", "tasks", cwd=place)
    assert output.code == 0
    assert "is below TF-IDF" in output.out


def test_tfidf_is_a_model_of_its_own(place: Path) -> None:
    found = json.loads(unsee("evaluate", "tfidf", "--tasks", "tasks", "--json", cwd=place).out)
    record = next(record for record in found["tasks"] if record["task"] == "similar")
    assert record["score"] == pytest.approx(record["tfidf"], abs=0.05)  # float32 beside float64
    assert found["mean"] > 50


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["good"], ["--tier", "--tasks"]),
        (["good", "--tier", "fats"], ["fats", "Did you mean fast?"]),
        (["good", "--tier", "STSBenchmrk"], ["Did you mean STSBenchmark"]),
        (["good", "--tier", "STSBenchmark"], ["--prefetch", "STSBenchmark"]),
        (["good", "--tasks", "nowhere"], ["nowhere", "not a folder"]),
        (["good", "--tasks", "tasks", "--shard", "3/2"], ["--shard 3/2", "1/8"]),
        (["good", "--tasks", "tasks", "--engine", "rya"], ["--engine rya", "--engine ray"]),
        (["good", "--tasks", "lacking"], ["lacking/pairs.tsv", "sentence1, sentence2, note", "sts: sentence1"]),
        (["good", "--tasks", "tasks", "--tasks", "tasks"], ["Two tasks", "tasks.yaml"]),
        (["nowhere/model", "--tasks", "tasks"], ["nowhere/model", "--prefetch"]),
        (["./nowhere", "--tasks", "tasks"], ["./nowhere", "no such folder"]),
        (["tasks", "--tasks", "tasks"], ["tasks is not a model", "modules.json"]),
        (["tfidf", "--tier", "sts"], ["--tasks DIR"]),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence(place: Path, arguments: list[str], words: list[str]) -> None:
    (place / "lacking").mkdir(exist_ok=True)
    table(place / "lacking" / "pairs.tsv", ["sentence1", "sentence2", "note"], [("a", "b", "no score")])
    is_sentence(unsee("evaluate", *arguments, cwd=place), *words)


HALVES = {
    "half": "model.safetensors",
    "half of modules": "modules.json",
    "half of pooling": "1_Pooling/config.json",
}


@pytest.mark.parametrize("gone", ["modules.json", "1_Pooling", "config.json", "model.safetensors", *HALVES])
def test_a_half_written_export_is_refused(place: Path, tiny: Tiny, tmp_path: Path, gone: str) -> None:
    folder = write_model(tmp_path / "half", tiny)
    if gone in HALVES:
        whole = (folder / HALVES[gone]).read_bytes()
        (folder / HALVES[gone]).write_bytes(whole[: len(whole) // 2])
    elif gone == "1_Pooling":
        (folder / gone / "config.json").unlink()
        (folder / gone).rmdir()
    else:
        (folder / gone).unlink()
    is_sentence(
        unsee("evaluate", str(folder), "--tasks", str(place / "tasks"), cwd=tmp_path), "half-written export"
    )


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "null"),
        ("modules.json", '[{"path": 3}]'),
        ("modules.json", '[{"idx": 0, "name": "0", "path": "", "type": "os.path"}]'),
        ("1_Pooling/config.json", "{}"),
        ("sentence_bert_config.json", '{"unknown": 1}'),
        ("tokenizer_config.json", "[]"),
        ("tokenizer.json", "{}"),
    ],
)
def test_a_damaged_export_is_refused(
    place: Path, tiny: Tiny, tmp_path: Path, file: str, content: str
) -> None:
    folder = write_model(tmp_path / "damaged", tiny)
    (folder / file).write_text(content)
    output = unsee("evaluate", str(folder), "--tasks", str(place / "tasks"), cwd=tmp_path)
    is_sentence(output, "damaged", "Export it again")


def test_mteb_runs_its_own_mock_tasks_on_our_encoder(place: Path) -> None:
    import mteb

    from unsee_dist.evaluation.mteb_suite import Encoder

    assert mteb.mock_run(Encoder(loaded(place / "good").encode, "local/good", "0")).all_passed
