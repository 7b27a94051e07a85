"""`import unsee_dist`: the functions do what the commands do, on the same files, and nothing is imported before it is used."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from integration import tiny as launch
from integration.evaluating import loaded
from integration.tiny import Tiny

import unsee_dist
from unsee_dist import UserError, evaluate, load_config, load_run, prepare, train

QUESTIONS = 'query\tanswer\n"the old river"\t"a bright garden ."\n"the house"\t"near the island ."\n"a letter"\t"the bridge ."\n'
# Without `if __name__ == "__main__":`: a worker that imported it would train, too.
SCRIPT = """
import os
import sys
from unsee_dist import Run, load_config, train

OURS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "DS_ACCELERATOR", "TORCH_GLOO_LAZY_INIT")

before = {name: os.environ.get(name) for name in OURS}
run = train(load_config(sys.argv[1], sys.argv[2:]))
assert isinstance(run, Run)
assert {name: os.environ.get(name) for name in OURS} == before, "what is started next must not take itself for a rank"
again = train(load_config(sys.argv[1], [*sys.argv[2:], sys.argv[-1] + "-again", "train.steps=2"]))
assert (again.state, again.step) == ("complete", 2)
print(run.name, run.state, run.step)
"""


@pytest.fixture(scope="module")
def settings(tiny: Tiny) -> list[str]:
    pairs = tiny.folder / "pairs.tsv"
    pairs.write_text(QUESTIONS)
    return [f"evaluate.retrieval={pairs}", "run.name=mine"]


@pytest.fixture(scope="module")
def run(tiny: Tiny, settings: list[str]) -> unsee_dist.Run:
    """Trained by a script, as a user writes one: training ends no process of pytest's."""
    script, folder = tiny.folder / "script.py", tiny.folder / "by-python"
    script.write_text(SCRIPT)
    command = [
        sys.executable,
        str(script),
        str(tiny.config),
        *settings,
        "data.workers=2",
        f"run.dir={folder}",
    ]
    env = launch.environment(PYTHONPATH=str(launch.REPOSITORY))
    printed = [launch.succeed(command, env=env, timeout_s=300).stdout for _ in range(2)]
    assert printed[0].splitlines()[-1] == "mine complete 6"
    assert printed[1].splitlines()[-1] == "mine complete 6"  # the second call left it as it was
    return load_run(folder)


def test_train_is_unsee_train(run: unsee_dist.Run, tiny: Tiny, settings: list[str]) -> None:
    folder = tiny.folder / "by-command"
    launch.succeed(launch.command("unsee", 1, tiny.config, *settings, f"run.dir={folder}"), timeout_s=300)
    assert launch.history(folder) == launch.history(run.folder)


@pytest.mark.slow
def test_a_script_under_torchrun_trains_on_all_ranks(
    run: unsee_dist.Run, tiny: Tiny, settings: list[str]
) -> None:
    folder = tiny.folder / "by-torchrun"
    command = [
        str(launch.BIN / "torchrun"),
        "--standalone",
        "--nproc-per-node=2",
        str(tiny.folder / "script.py"),
    ]
    env = launch.environment(PYTHONPATH=str(launch.REPOSITORY))
    done = launch.succeed(
        [*command, str(tiny.config), *settings, f"run.dir={folder}"], env=env, timeout_s=300
    )
    assert done.stdout.count("mine complete 6") == 2
    ours, theirs = launch.losses(run.folder), launch.losses(folder)
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-4)


def test_the_tables_are_metrics_jsonl(run: unsee_dist.Run) -> None:
    table, lines = run.metrics(), launch.lines(run.folder / "metrics.jsonl")
    assert list(table.index) == list(range(7))
    assert {"step", *table.columns} == {name for line in lines for name in line}
    for line in lines:
        for name, value in line.items():
            if name not in ("step", "time") and value is not None:
                assert table.loc[line["step"], name] == value
    assert np.isnan(table.loc[0, "loss"])
    scores = run.scores()
    assert [*scores.index] == ["before", "best", "last"]
    assert list(scores["step"]) == [0, scores.loc["best", "step"], 6]
    assert scores.loc["last", "dev/mrr"] == table.loc[6, "dev/mrr"]
    best = table.loc[3:, "dev/mrr"].max()
    assert scores.loc["best", "dev/mrr"] == best
    assert str(run) == f"<run mine: complete, step 6 of 6, {run.folder}>"
    assert run.config.train.batch == 8
    assert run.problems == ()


def test_encode_is_the_encoder_that_sentence_transformers_loads_from_the_runs_folder(
    run: unsee_dist.Run,
) -> None:
    sentences = ["the old river follows a bright garden .", "the house"]
    ours = run.encode(sentences)
    assert (ours.shape, ours.dtype) == ((2, 32), np.float32)
    np.testing.assert_array_equal(loaded(run.folder).encode(sentences), ours)
    np.testing.assert_array_equal(loaded(run.folder / "best").encode(sentences), ours)
    control = loaded(run.folder / "final").encode(sentences)
    if run.scores().loc["best", "step"] != 6:
        assert not np.array_equal(control, ours)
    assert loaded(run.folder).max_seq_length == 16
    assert loaded(run.folder)[1].pooling_mode == "mean"


def test_a_run_without_scores_is_loaded_from_final_and_an_older_one_gets_its_file_from_the_same_command(
    tiny: Tiny, tmp_path: Path
) -> None:
    command = launch.command("unsee", 1, tiny.config, f"run.dir={tmp_path}")
    launch.succeed(command, timeout_s=300)
    record = (tmp_path / "config.yaml").read_bytes()
    first = loaded(tmp_path).encode(["the house"])
    np.testing.assert_array_equal(first, load_run(tmp_path).encode(["the house"]))
    assert {module["path"] for module in json.loads((tmp_path / "modules.json").read_text())} == {
        "final",
        "final/1_Pooling",
    }
    (tmp_path / "modules.json").unlink()
    launch.succeed(command, timeout_s=300)
    np.testing.assert_array_equal(loaded(tmp_path).encode(["the house"]), first)
    assert (tmp_path / "config.yaml").read_bytes() == record


def test_evaluate_gives_the_scores_of_the_command(run: unsee_dist.Run, place: Path) -> None:
    table = evaluate(run, tasks=place / "tasks")
    command = [
        str(launch.BIN / "unsee"),
        "evaluate",
        str(run.folder),
        "--tasks",
        str(place / "tasks"),
        "--json",
    ]
    printed = json.loads(launch.succeed(command, timeout_s=300).stdout)
    assert {task["task"]: task["score"] for task in printed["tasks"]} == dict(
        zip(table["task"], table["score"], strict=True)
    )
    assert len(table) > 1


def test_prepare_is_unsee_prepare(tiny: Tiny, tmp_path: Path) -> None:
    text = tiny.folder / "sentences.txt"
    report = prepare(text, tmp_path / "here", dev=20, processes=1)
    command = [
        str(launch.BIN / "unsee"),
        "prepare",
        str(text),
        "--out",
        str(tmp_path / "there"),
        "--dev",
        "20",
    ]
    launch.succeed(command, timeout_s=300)
    assert (report.kept, report.dev) == (report.read - sum(report.dropped.values()), 20)
    for name in ("index.json", "dev.tsv"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda _: load_config("unsee-vicreg", ["train.btach=3"]), "did you mean train.batch"),
        (lambda _: load_config("unsee-vicrek"), "unsee-vicreg"),
        (lambda f: prepare("no.txt", f / "out"), "no.txt"),
        (
            lambda f: prepare("no.txt", f / "out", devs=3),
            "devs = 3 is not a setting of prepare. Did you mean dev?",
        ),
        (lambda f: prepare("no.txt", f / "out", dev=-1), "dev = -1 must be at least 0"),
        (lambda f: load_run(f), "is not a run's folder"),
        (lambda f: load_run(f / "nothing"), "is not a folder"),
        (lambda f: evaluate("tfidf", tasks=f), "holds no task"),
        (lambda _: evaluate("tfidf"), 'Write tiers="sts", or tasks="DIR"'),
        (lambda _: evaluate("tfidf", tiers="nosuch"), "nosuch is neither a tier"),
        (lambda _: load_config("unsee-vicreg", "train.lr=3"), "Write a list: ['train.lr=3']"),
        (lambda _: train("unsee-vicreg"), "Write load_config('unsee-vicreg')"),
    ],
)
def test_a_mistake_is_the_sentence_of_the_command(call, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        call(tmp_path)
    assert words in str(caught.value)


def test_one_text_is_no_list(run: unsee_dist.Run) -> None:
    with pytest.raises(UserError, match=r"Write a list: \['the house'\]"):
        run.encode("the house")
    with pytest.raises(UserError, match=r"^sentences\[1\] = 3 is not a text"):
        run.encode(["the house", 3])  # type: ignore[list-item]  # the mistake
    assert run.encode([]).shape == (0, run.encode(["the house"]).shape[1])


def test_a_package_that_is_missing_is_named(run: unsee_dist.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r'pip install "unsee_dist\[evaluate\]"'):
        load_run(run.folder).encode(["the house"])


IMPORTS = """
import sys
import unsee_dist
assert not {"typing_extensions", "importlib.metadata", "pydantic", "numpy", "torch"} & set(sys.modules), sorted(sys.modules)
assert set(unsee_dist.__all__) <= set(dir(unsee_dist))
unsee_dist.load_config, unsee_dist.load_run, unsee_dist.prepare, unsee_dist.train, unsee_dist.evaluate
unsee_dist.load_config("unsee-vicreg")
assert not {"torch", "pandas", "transformers", "mteb"} & set(sys.modules)
function = unsee_dist.train
import unsee_dist.train  # the script of the launchers bears the name of the function
assert unsee_dist.train is not function
try:
    unsee_dist.train(None)
except ValueError as error:  # called
    assert "config = None is not a configuration" in str(error)
from unsee_dist.train import main
print(unsee_dist.__version__)
"""


def test_nothing_is_imported_before_it_is_used_and_train_is_called_whatever_was_imported() -> None:
    env = launch.environment(PYTHONPATH=str(launch.REPOSITORY))
    assert launch.succeed([sys.executable, "-c", IMPORTS], env=env).stdout.strip()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        unsee_dist.nothing  # noqa: B018
