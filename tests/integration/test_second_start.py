"""The second command in a run's folder: refused, said, grown or complete; and the record is what ran."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import xxhash
import yaml
from integration import ranks
from integration import tiny as launch
from integration.evaluating import is_sentence, loaded, unsee, write_tasks
from integration.tiny import Tiny

KEPT = ("config.yaml", "metrics.jsonl", "history.jsonl", "checkpoints", "best", "final")


@dataclass
class Trained:
    """A finished run of six steps, and the settings of its command."""

    folder: Path
    settings: tuple[str, ...]


@pytest.fixture(scope="module")
def trained(tiny: Tiny) -> Trained:
    dev = tiny.folder / "dev.tsv"
    write_pairs(dev, tiny.encoder, 0)
    folder = tiny.folder / "second"
    settings = (f"run.dir={folder}", "parallel.zero=0", f"evaluate.sts={dev}")
    first = ranks.start(1, tiny.config, *settings)
    first.succeed()
    return Trained(folder, settings)


def write_pairs(path: Path, encoder: Path, first: int) -> None:
    """Pairs whose scores are the untrained encoder's own cosines, which no training can but lower."""
    texts = launch.corpus(200)[first : first + 80]
    model = loaded(encoder)
    one, two = (model.encode(texts[place::2], normalize_embeddings=True) for place in (0, 1))
    pairs = zip(texts[::2], texts[1::2], (one * two).sum(axis=1), strict=True)
    rows = [f"{a}\t{b}\t{cosine:.8f}" for a, b, cosine in pairs]
    path.write_text("\n".join(["sentence1\tsentence2\tscore", *rows]) + "\n", encoding="utf-8")


def contents(folder: Path) -> dict[str, str]:
    """Digests of every file of a run that a later start must leave alone."""
    files = [path for name in KEPT for path in [folder / name, *(folder / name).rglob("*")] if path.is_file()]
    return {str(path.relative_to(folder)): xxhash.xxh3_64_hexdigest(path.read_bytes()) for path in files}


def copied(trained: Trained, folder: Path) -> Path:
    shutil.copytree(trained.folder, folder)
    return folder


def refused(tiny: Tiny, trained: Trained, *more: str) -> str:
    """What a start says that is refused and changes nothing."""
    before = contents(trained.folder)
    again = ranks.start(1, tiny.config, *trained.settings, *more)
    assert again.wait() == [2], again.text()
    assert "Traceback" not in again.text()
    assert contents(trained.folder) == before
    return again.text()


def test_a_second_experiment_in_the_folder_is_refused_with_a_table(tiny: Tiny, trained: Trained) -> None:
    message = refused(
        tiny, trained, "train.lr=1e-2", "target.decay=0.99", "objective.covariance=10", "seed=5"
    )
    rows = [line.split() for line in message.splitlines()]
    for row in (
        "train.lr 0.001 0.01",
        "target.decay 0.999 0.99",
        "objective.covariance 1.0 10.0",
        "seed 0 5",
    ):
        assert row.split() in rows
    assert f"run.dir={trained.folder}-2" in message


def test_a_complete_run_says_what_it_holds_and_compares_its_own_scores(tiny: Tiny, trained: Trained) -> None:
    before = contents(trained.folder)
    again = ranks.start(1, tiny.config, *trained.settings)
    again.succeed()
    assert contents(trained.folder) == before
    printed = " ".join(again.text().split())
    assert f"{trained.folder} is complete, nothing to do: 6 of 6 steps. It holds best/ (" in printed
    lines = [line for line in launch.lines(trained.folder / "metrics.jsonl") if "dev/sts" in line]
    (table,) = [line for line in again.text().splitlines() if line.startswith("│ sts")]
    assert f"{lines[0]['dev/sts']:.2f}" in table
    assert f"{lines[-1]['dev/sts']:.2f}" in table
    assert "best/ is worse than before training" in printed


def test_training_that_made_the_encoder_worse_is_said_everywhere(tiny: Tiny, trained: Trained) -> None:
    lines = [line for line in launch.lines(trained.folder / "metrics.jsonl") if "dev/sts" in line]
    assert [line["dev/gain"] for line in lines[1:]] == [
        line["dev/sts"] - lines[0]["dev/sts"] for line in lines[1:]
    ]
    assert lines[0]["dev/sts"] > 99
    assert lines[1]["dev/gain"] < 0
    note = json.loads((trained.folder / "best" / "unsee.json").read_text())
    best = next(line for line in lines if line["step"] == note["step"])["dev/sts"]
    assert note["worse"] == (
        f"worse than before training: dev/sts {best:.2f}, before {lines[0]['dev/sts']:.2f}"
    )
    assert "Worse than before training" in (trained.folder / "best" / "README.md").read_text()
    out = tiny.folder / "worse-given"
    assert unsee("export", str(trained.folder), "--out", str(out), cwd=tiny.folder).code == 0
    assert note["worse"].replace("worse", "Worse", 1) in (out / "README.md").read_text()


@pytest.mark.slow
def test_contents_behind_equal_names_are_part_of_the_result(tiny: Tiny, trained: Trained) -> None:
    """Another tokenizer of the same shape, other weights, other development pairs: each under its old name."""
    dev, vocabulary = tiny.folder / "dev.tsv", tiny.encoder / "tokenizer.json"
    kept = {path: path.read_bytes() for path in (dev, vocabulary, tiny.encoder / "model.safetensors")}
    try:
        write_pairs(dev, tiny.encoder, 100)
        assert "evaluate.sts" in refused(tiny, trained)
        dev.write_bytes(kept[dev])
        tree = json.loads(vocabulary.read_text())
        vocab = tree["model"]["vocab"]
        vocab["river"], vocab["house"] = vocab["house"], vocab["river"]
        vocabulary.write_text(json.dumps(tree))
        message = refused(tiny, trained)
        assert any(line.split()[:1] == ["tokenizer"] for line in message.splitlines())
        vocabulary.write_bytes(kept[vocabulary])
        other_weights(tiny.encoder / "model.safetensors")
        assert "model.encoder" in refused(tiny, trained)
    finally:
        for path, data in kept.items():
            path.write_bytes(data)
    for setting in ("model.pooling=cls", "model.max_tokens=12"):
        assert setting.partition("=")[0] in refused(tiny, trained, setting)


def other_weights(path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    state = load_file(path)
    name = sorted(state)[0]
    state[name] = state[name] + 1e-3
    save_file(state, path, metadata={"format": "pt"})


@pytest.mark.slow
def test_a_run_grows_and_its_record_stays_what_it_was(tiny: Tiny, trained: Trained, tmp_path: Path) -> None:
    folder = copied(trained, tmp_path / "grown")
    config = (folder / "config.yaml").read_bytes()
    settings = (
        *trained.settings,
        f"run.dir={folder}",
        "train.steps=9",
        "train.micro_batch=4",
        "track.mlflow=true",
    )
    uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    grown = ranks.start(1, tiny.config, *settings, **uri)
    grown.succeed()
    printed = " ".join(grown.text().split())
    assert "the run grows from 6 to 9 steps after step 6" in printed
    assert "train.micro_batch absent -> 4" in printed
    assert (folder / "config.yaml").read_bytes() == config
    assert [line["step"] for line in launch.history(folder) if "loss" in line] == list(range(1, 10))
    assert launch.history(folder)[: len(launch.history(trained.folder))] == launch.history(trained.folder)
    from mlflow import MlflowClient

    client = MlflowClient(uri["MLFLOW_TRACKING_URI"])
    (run,) = client.search_runs([client.get_experiment_by_name("unsee").experiment_id])
    assert (run.data.params["train.steps"], run.data.params["train.micro_batch"]) == ("6", "absent")
    assert "train.steps 6 -> 9" in run.data.tags["unsee.changes"]
    assert run.data.tags["unsee.verdict"].startswith("worse than before training")
    assert run.data.metrics["dev/gain"] < 0
    out = tmp_path / "given"
    assert unsee("export", f"{folder}/final", "--out", str(out), cwd=tmp_path).code == 0
    card = (out / "README.md").read_text()
    assert "9 steps" in card
    assert "The settings below changed after step 6: " in card
    assert yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])["train"]["steps"] == 6


@pytest.mark.slow
def test_another_run_starts_from_this_one_and_is_a_run_of_its_own(
    tiny: Tiny, trained: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "branch"
    settings = (
        *trained.settings,
        f"run.dir={folder}",
        f"resume={trained.folder}",
        "train.lr=1e-4",
        "train.steps=9",
    )
    first = ranks.start(1, tiny.config, *settings, UNSEE_KILL_AT="forward 8 0")
    assert first.wait() == [-9], first.text()
    ranks.start(1, tiny.config, *settings).succeed()
    lines = launch.lines(folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == [6, 7, 8, 9, 9]
    last = [line for line in launch.lines(trained.folder / "metrics.jsonl") if "dev/sts" in line][-1]
    assert lines[0]["dev/sts"] == pytest.approx(last["dev/sts"])  # it begins with that encoder
    assert lines[-1]["dev/gain"] == pytest.approx(lines[-1]["dev/sts"] - lines[0]["dev/sts"])
    manifest = json.loads((folder / "checkpoints" / "step-00000009" / "manifest.json").read_text())
    assert manifest["progress"]["best"]["step"] == 9
    assert yaml.safe_load((folder / "config.yaml").read_text())["train"]["lr"] == 1e-4


def test_a_record_with_a_hole_or_of_two_runs_is_not_continued_without_a_word(
    tiny: Tiny, trained: Trained, tmp_path: Path
) -> None:
    folder = copied(trained, tmp_path / "hole")
    shutil.rmtree(folder / "checkpoints" / "step-00000006")
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], *lines[3:]]))
    settings = (*trained.settings, f"run.dir={folder}")
    again = ranks.start(1, tiny.config, *settings)
    again.succeed()
    assert f"{path} has lost 1 of the 5 lines that the checkpoint of step 3 had counted" in " ".join(
        again.text().split()
    )
    path.write_text("".join([*lines, *lines]))
    back = ranks.start(1, tiny.config, *settings)
    assert back.wait() == [2], back.text()
    assert f"{path}, line 10: step 0 comes after step 6" in back.text()
    assert "Traceback" not in back.text()


def test_a_run_that_is_half_finished_names_its_newest_checkpoint(trained: Trained, tmp_path: Path) -> None:
    folder = copied(trained, tmp_path / "half")
    for name in ("best", "final"):
        shutil.rmtree(folder / name)
    write_tasks(tmp_path / "tasks")
    newest = f"Give its newest checkpoint: {folder}/checkpoints/step-00000006"
    is_sentence(unsee("evaluate", str(folder), "--tasks", "tasks", cwd=tmp_path), newest)
    shutil.rmtree(folder / "checkpoints")
    is_sentence(
        unsee("evaluate", str(folder), "--tasks", "tasks", cwd=tmp_path), "It has no checkpoint either"
    )


@pytest.mark.slow
def test_collapsed_is_one_verdict(tiny: Tiny, trained: Trained, tmp_path: Path) -> None:
    """A rate that collapses the encoder: what training calls collapsed, no command scores or gives away."""
    folder = tmp_path / "collapsed"
    run = ranks.start(1, tiny.config, *trained.settings, f"run.dir={folder}", "train.lr=5", "train.steps=8")
    run.succeed()
    assert "this run has no usable encoder" in run.text()
    assert "SentenceTransformer" not in run.text()
    assert "there is no `best/`" in run.text()
    write_tasks(tmp_path / "tasks")
    for model in (folder, folder / "final", folder / "checkpoints" / "step-00000008"):
        scored = unsee("evaluate", str(model), "--tasks", "tasks", "--json", cwd=tmp_path)
        assert scored.code == 4, scored.err
        assert {task["score"] for task in json.loads(scored.out)["tasks"]} == {None}
        given = unsee("export", str(model), "--out", "given", cwd=tmp_path)
        is_sentence(given, "is not exported: the embeddings have collapsed (effective rank")
        assert not (tmp_path / "given").exists()
