"""What a start does with a folder: a new run, the next step, another run's checkpoint, nothing, or a refusal."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from test_checkpoint_parts import write

from unsee_dist.config import load
from unsee_dist.config.kinds import Kind, flat, of_kind
from unsee_dist.distributed.world import World
from unsee_dist.errors import UserError
from unsee_dist.files import contents
from unsee_dist.tracking import record
from unsee_dist.tracking.metrics_file import METRICS
from unsee_dist.training.checkpoint import directory
from unsee_dist.training.checkpoint.manifest import NAME, Identity, read_manifest
from unsee_dist.training.edited import check_scores
from unsee_dist.training.progress import Progress
from unsee_dist.training.schedule import learning_rate
from unsee_dist.training.start import (
    Start,
    StartRequest,
    free_name,
    keep_record,
    plan_start,
    refuse_other_settings,
)

ALONE = World.alone()
IDENTITY = Identity({}, "bert, e1", "45 pieces, t1", "c1", "9 pairs, s1", "absent", "version 2")
SENTENCES = 320  # ten steps of 32 in an epoch


def request(run: Path, *overrides: str, **contents: str) -> StartRequest:
    config = load("base", [f"run.dir={run}", "train.steps=10", *overrides])
    identity = replace(IDENTITY, settings=of_kind(flat(config), Kind.RESULT), **contents)
    return StartRequest(config, identity, SENTENCES)


def trained(run: Path, step: int, *overrides: str, exported: bool = True) -> Path:
    """A run's folder with a checkpoint of `step`, as training leaves it."""
    of = request(run, *overrides)
    folder = run / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    progress = Progress(step=step, updates=step, evaluated=step)
    write(folder)
    manifest = replace(read_manifest(folder), identity=of.identity, progress=progress, adam_updates=step)
    (folder / NAME).write_text(manifest.to_json())
    keep_record(of.config, Start(), 0, 1, {})
    if exported:
        (run / "final").mkdir()
    return run


@pytest.mark.parametrize("inside", ["checkpoints", "final", "checkpoints/step-00000004"])
def test_a_new_run_is_not_put_into_a_folder_of_another_run(tmp_path: Path, inside: str) -> None:
    run = trained(tmp_path / "run", 4)
    with pytest.raises(
        UserError, match=rf"in {inside.split('/')[0]}/ of another run.*run.dir={run} to continue.*run-2 for"
    ):
        plan_start(ALONE, request(run / inside))
    assert plan_start(ALONE, request(run / "mine")).checkpoint is None
    assert plan_start(ALONE, request(tmp_path / "final")).checkpoint is None


def refusal(given: StartRequest) -> str:
    before = {path: path.stat().st_mtime_ns for path in given.folder.rglob("*")}
    with pytest.raises(UserError) as refused:
        plan_start(ALONE, given)
    assert {path: path.stat().st_mtime_ns for path in given.folder.rglob("*")} == before
    return str(refused.value)


def test_an_empty_folder_is_a_new_run(tmp_path: Path) -> None:
    assert plan_start(ALONE, request(tmp_path / "new")) == Start()


def test_the_same_settings_continue(tmp_path: Path) -> None:
    run = trained(tmp_path / "a", 4, exported=False)
    start = plan_start(ALONE, request(run))
    assert start == Start(run / "checkpoints" / "step-00000004")
    assert start.continues


def test_a_run_with_all_its_steps_and_final_is_complete_and_one_without_final_is_not(tmp_path: Path) -> None:
    assert plan_start(ALONE, request(trained(tmp_path / "a", 10))).complete
    assert not plan_start(ALONE, request(trained(tmp_path / "b", 10, exported=False))).complete
    assert not plan_start(ALONE, request(trained(tmp_path / "c", 9))).complete


@pytest.mark.parametrize(
    ("setting", "row"),
    [
        ("train.lr=1e-3", "train.lr  0.0001  0.001"),
        ("target.decay=0.99", "target.decay  0.999  0.99"),
        ("objective.covariance=10", "objective.covariance  1.0  10.0"),
        ("objective.name=byol", "objective.name  vicreg  byol"),
        ("model.pooling=cls", "model.pooling  mean  cls"),
        ("model.max_tokens=32", "model.max_tokens  64  32"),
        ("model.dropout=0.2", "model.dropout  absent  0.2"),
        ("train.warmup=0", "train.warmup  0.1  0.0"),
        ("train.clip=null", "train.clip  1.0  absent"),
        ("train.batch=16", "train.batch  32  16"),
        ("projector.blocks=2", "projector.blocks  1  2"),
        ("seed=1", "seed  0  1"),
    ],
)
def test_a_setting_that_is_part_of_the_result_is_refused_with_there_and_here(
    tmp_path: Path, setting: str, row: str
) -> None:
    run = trained(tmp_path / "a", 4)
    sentences = refusal(request(run, setting))
    assert row in [" ".join(line.split()).replace(" ", "  ") for line in sentences.splitlines()]
    assert f"run.dir={tmp_path}/a-2" in sentences
    carried = setting.partition("=")[0] in ("objective.name", "train.batch", "projector.blocks", "seed")
    assert (f"resume={run}" in sentences) != carried
    assert (f"model.encoder={run}/final" in sentences) == carried


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("encoder", "model.encoder"),
        ("tokenizer", "tokenizer"),
        ("corpus", "data.shards"),
        ("order", "order"),
        ("sts", "evaluate.sts"),
        ("retrieval", "evaluate.retrieval"),
    ],
)
def test_another_content_under_the_same_name_is_refused(tmp_path: Path, content: str, key: str) -> None:
    run = trained(tmp_path / "a", 4)
    sentences = refusal(request(run, **{content: "other content"}))
    (row,) = [line for line in sentences.splitlines() if line.split()[:1] == [key]]
    assert "other content" in row


def test_a_corpus_that_has_moved_is_the_same_run_and_its_new_place_is_said(tmp_path: Path) -> None:
    run = trained(tmp_path / "a", 4)
    start = plan_start(ALONE, request(run, "data.shards=data/moved", "data.workers=0"))
    assert start.sentences == (
        "changed since the last start: data.shards data/wiki1m -> data/moved, data.workers 2 -> 0",
    )
    keep_record(request(run, "data.shards=data/moved", "data.workers=0").config, start, 4, 2, {})
    assert record.changes(run) == ["after step 4: data.shards data/wiki1m -> data/moved, data.workers 2 -> 0"]
    assert plan_start(ALONE, request(run, "data.shards=data/moved", "data.workers=0")).sentences == ()
    assert [line.ranks for line in record.starts(run)] == [1, 2]


def test_the_record_of_the_first_start_stays(tmp_path: Path) -> None:
    run = trained(tmp_path / "a", 10)
    first = (run / "config.yaml").read_bytes()
    for given in (request(run, "parallel.zero=3"), request(run, "train.steps=20", "track.every=5")):
        keep_record(given.config, plan_start(ALONE, given), 10, 1, {})
        assert (run / "config.yaml").read_bytes() == first


def test_a_complete_run_records_nothing_of_a_start_that_trains_nothing(tmp_path: Path) -> None:
    run = trained(tmp_path / "a", 10)
    given, before = request(run, "data.workers=0"), (run / "history.jsonl").read_bytes()
    start = plan_start(ALONE, given)
    assert (start.complete, start.changed, start.sentences) == (True, (), ())
    keep_record(given.config, start, 10, 1, {})
    assert (run / "history.jsonl").read_bytes() == before


@pytest.mark.parametrize("steps", [3, 4, 9])
def test_a_run_does_not_shrink(tmp_path: Path, steps: int) -> None:
    run = trained(tmp_path / "a", 4)
    sentences = refusal(request(run, f"train.steps={steps}"))
    assert (
        f"train.steps = {steps} is fewer than the 10 steps that {run} was started with (4 are trained)"
        in sentences
    )
    assert "train.steps=10 or more" in sentences
    epochs = refusal(request(run, "train.steps=null", "train.epochs=0.5"))
    assert "train.epochs = 0.5, 5 steps, is fewer than the 10" in epochs


@pytest.mark.parametrize("longer", [("train.steps=40",), ("train.steps=null", "train.epochs=4")])
def test_a_run_grows_and_says_which_schedule_follows(tmp_path: Path, longer: tuple[str, ...]) -> None:
    run = trained(tmp_path / "a", 10)
    start = plan_start(ALONE, request(run, *longer))
    assert not start.complete
    (sentences,) = [sentence for sentence in start.sentences if "grows" in sentence]
    assert "the run grows from 10 to 40 steps after step 10" in sentences
    assert f"goes on with {learning_rate(11, 40, 1e-4, 0.1):.1e}" in sentences
    assert "not what 40 steps at once" in sentences


def test_a_run_that_grows_before_its_warmup_is_over_says_its_peak(tmp_path: Path) -> None:
    run = trained(tmp_path / "a", 10, "target.schedule=cosine")
    (_, sentences) = plan_start(ALONE, request(run, "train.steps=400", "target.schedule=cosine")).sentences
    assert "rises to 1.0e-04 at update 40" in sentences
    assert "the decay with 0.99" in sentences


def test_the_same_steps_as_epochs_are_no_growth(tmp_path: Path) -> None:
    run = trained(tmp_path / "a", 4)
    start = plan_start(ALONE, request(run, "train.steps=null"))
    assert start.sentences == ("changed since the last start: train.steps 10 -> absent",)


def test_another_run_starts_from_a_checkpoint_under_its_own_settings(tmp_path: Path) -> None:
    run = trained(tmp_path / "a", 10)
    given = request(
        tmp_path / "b", f"resume={run}", "train.lr=1e-3", "train.steps=30", "evaluate.every=2", sts="absent"
    )
    start = plan_start(ALONE, given)
    assert start == Start(run / "checkpoints" / "step-00000010", own=False)
    (tmp_path / "b").mkdir()
    keep_record(given.config, start, 10, 1, {})
    (line,) = record.starts(tmp_path / "b")
    assert (line.step, line.origin) == (10, str(run / "checkpoints" / "step-00000010"))


@pytest.mark.parametrize("setting", ["seed=3", "train.batch=64", "projector.width=2", "objective.name=byol"])
def test_what_a_checkpoint_carries_must_be_shared_by_a_run_that_starts_from_it(
    tmp_path: Path, setting: str
) -> None:
    run = trained(tmp_path / "a", 4)
    sentences = refusal(request(tmp_path / "b", f"resume={run}", setting))
    assert f"resume = {run} cannot be the start of this run" in sentences
    assert "model.encoder=RUN/best" in sentences


def test_a_start_from_a_checkpoint_leaves_something_to_train(tmp_path: Path) -> None:
    run = trained(tmp_path / "a", 10)
    sentences = refusal(request(tmp_path / "b", f"resume={run}", "train.lr=1e-3"))
    assert "nothing is left to train. Write train.steps=N with more than 10" in sentences


@pytest.mark.parametrize("name", ["metrics.jsonl", "history.jsonl"])
def test_a_file_of_another_program_is_not_emptied(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_text('{"epoch": 3, "accuracy": 0.9}\n')
    assert f"has {name} and no config.yaml" in refusal(request(tmp_path / "a"))


def test_a_folder_without_checkpoint_begins_anew_and_says_so(tmp_path: Path) -> None:
    run = tmp_path / "a"
    run.mkdir()
    keep_record(request(run).config, Start(), 0, 1, {})
    (run / "mlflow.json").write_text("{}")
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    given = request(run, "train.lr=1e-3")
    start = plan_start(ALONE, given)
    assert (
        "begins anew, with other settings than were tried there before (train.lr 0.0001 -> 0.001)"
        in start.sentences[0]
    )
    keep_record(given.config, start, 0, 1, {})
    assert record.first_settings(run) == given.config
    assert (run / "metrics.jsonl").read_text() == ""
    assert not (run / "mlflow.json").exists()  # MLflow keeps the first parameters: another run there
    (run / "best").mkdir()
    assert "was trained with other settings" in refusal(request(run, "train.lr=1e-2"))


def test_a_start_without_a_checkpoint_says_what_it_replaces_and_never_replaces_a_whole_run(
    tmp_path: Path,
) -> None:
    run = trained(tmp_path / "a", 10, exported=False)
    shutil.rmtree(run / "checkpoints")
    assert plan_start(ALONE, request(run)).sentences == ()  # killed before its first line
    (run / METRICS).write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 2.0}\n')
    (run / "best").mkdir()
    assert plan_start(ALONE, request(run)).sentences == (
        f"{run} has no checkpoint: the run begins anew. What the earlier start left is replaced: 2 lines of metrics.jsonl and "
        "best/",
    )
    (run / "final").mkdir()
    for given in (request(run), request(run, "resume=never"), request(run, "data.workers=0")):
        sentences = refusal(given)
        assert "the checkpoints of that run are gone" in sentences
        assert f"Write run.dir={tmp_path}/a-2 for a run of its own" in sentences


@pytest.mark.parametrize("text", ["", "{", "train: {lr: x}\n", "tarin: {lr: 1}\n"])
def test_a_damaged_record_is_named_and_left(tmp_path: Path, text: str) -> None:
    run = trained(tmp_path / "a", 4)
    (run / "config.yaml").write_text(text)
    assert f"{run}/config.yaml cannot be read as the settings of this run" in refusal(request(run))


def test_a_record_that_is_gone_is_written_again_and_the_checkpoint_still_refuses(tmp_path: Path) -> None:
    run = trained(tmp_path / "a", 4)
    (run / "config.yaml").unlink()
    assert "train.lr" in refusal(request(run, "train.lr=1e-3"))
    keep_record(request(run).config, plan_start(ALONE, request(run)), 4, 1, {})
    assert record.first_settings(run) == request(run).config


@pytest.mark.parametrize("line", ['{"step": 4}', '{"step": 4, "changed": {"train.lr": 3}}', "x"])
def test_a_damaged_history_is_named(tmp_path: Path, line: str) -> None:
    run = trained(tmp_path / "a", 4)
    (run / "history.jsonl").write_text(line + "\n")
    assert "history.jsonl" in refusal(request(run))


def test_settings_alone_are_refused_before_a_corpus_is_tokenised(tmp_path: Path) -> None:
    run = trained(tmp_path / "a", 4)
    refuse_other_settings(ALONE, request(tmp_path / "new").config)
    refuse_other_settings(ALONE, request(run, "data.workers=0").config)
    with pytest.raises(UserError, match=r"model.max_tokens +64 +32"):
        refuse_other_settings(ALONE, request(run, "model.max_tokens=32").config)
    (run / "checkpoints" / "step-00000004" / NAME).write_text("{")
    refuse_other_settings(
        ALONE, request(run, "model.max_tokens=32").config
    )  # sentences with the damage, later


def test_the_name_that_is_offered_is_free(tmp_path: Path) -> None:
    for name in ("a", "a-2", "a-3"):
        (tmp_path / name).mkdir()
    assert free_name(tmp_path / "a") == tmp_path / "a-4"


def test_a_record_that_was_edited_is_refused(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", 10)
    path = run / "config.yaml"
    whole = path.read_text()
    path.write_text(whole.replace("lr: 0.0001", "lr: 0.5"))
    assert path.read_text() != whole
    message = refusal(request(run))
    assert f"{path} was edited" in message
    assert "train.lr  0.5" in message
    path.write_text(whole)
    assert plan_start(ALONE, request(run)).complete


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ('{"nonsense": [1, 2]}', "line 1 is damaged"),
        ('{"train.steps": [6, "abc"]}', "a length that no run can have"),
    ],
)
def test_a_history_that_was_edited_is_a_sentence(tmp_path: Path, changed: str, words: str) -> None:
    run = trained(tmp_path / "run", 10)
    (run / record.HISTORY).write_text(f'{{"step": 3, "ranks": 1, "time": 1.0, "changed": {changed}}}\n')
    assert words in refusal(request(run, "train.steps=12"))


def test_a_folder_that_looks_like_a_checkpoint_and_is_none_is_never_removed(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    for step in (1, 2, 3):
        (checkpoints / f"step-{step:08d}").mkdir(parents=True)
        (checkpoints / f"step-{step:08d}" / "mine.txt").write_text("mine")
    contents.write_contents(checkpoints / "step-00000003", "")
    with pytest.raises(UserError, match=r"step-00000001 was not written by a training. Nothing was removed"):
        directory.remove_by_name(checkpoints, ["step-00000001", "step-00000003"])
    directory.remove_old(checkpoints / "step-00000003", 1, None)
    assert len(directory.folders(checkpoints)) == 3
    directory.remove_by_name(checkpoints, ["step-00000003"])
    assert [path.name for path in directory.folders(checkpoints)] == ["step-00000001", "step-00000002"]


def test_a_copy_under_the_name_of_a_later_step_is_neither_continued_from_nor_removed(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", 3)
    checkpoints = run / "checkpoints"
    contents.write_contents(checkpoints / "step-00000003", "")
    shutil.copytree(checkpoints / "step-00000003", checkpoints / "step-00000009")
    with pytest.raises(UserError, match=r"step-00000009 holds step 3: it is a copy under another name"):
        directory.verify(checkpoints / "step-00000009")
    mine = [checkpoints / name for name in (".step-foo", ".step-00000001.txt")]
    for path in mine:
        path.touch()
    (checkpoints / ".step-mine").mkdir()
    (checkpoints / ".step-00000002.new").mkdir()
    directory.remove_old(checkpoints / "step-00000003", 1, None)
    assert sorted(path.name for path in checkpoints.iterdir()) == [
        *(".step-00000001.txt", ".step-foo", ".step-mine"),
        *("step-00000003", "step-00000009"),
    ]


def test_a_configuration_of_the_users_in_the_folder_of_the_run_stays(tmp_path: Path) -> None:
    run = tmp_path / "mine"
    run.mkdir()
    text = "# my notes\nextends: base\ntrain:\n  steps: 10\n"
    (run / "config.yaml").write_text(text)
    message = refusal(request(run))
    assert f"{run}/config.yaml is a file of yours" in message
    assert f"Write run.dir={run}/run" in message
    assert (run / "config.yaml").read_text() == text


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ('{"step": 10, "dev/sts": 70.5, "dev/std": null}', True),
        ('{"step": 10, "dev/sts": 99.5, "dev/std": null}', False),
        ('{"step": 10, "dev/sts": 70.5, "dev/std": 0.5}', False),
        ('{"step": 9, "dev/sts": 99.5}', True),  # what no checkpoint has kept
        ("damaged", True),  # said by whoever needs it
    ],
)
def test_scores_that_were_edited_are_told_from_those_that_were_measured(
    tmp_path: Path, line: str, right: bool
) -> None:
    run = trained(tmp_path / "run", 10)
    folder = run / "checkpoints" / "step-00000010"
    manifest = read_manifest(folder)
    scores = {"dev/sts": 70.5, "dev/std": math.inf}
    manifest = replace(manifest, progress=replace(manifest.progress, scores=scores))
    (folder / NAME).write_text(manifest.to_json())
    (run / METRICS).write_text(line + "\n")
    if right:
        check_scores(run)
        return
    with pytest.raises(UserError, match=r"metrics.jsonl was edited: dev/st. of step 10 is"):
        check_scores(run)
