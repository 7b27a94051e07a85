"""One parent run a sweep with its trials below it and its report as artifacts, whoever was killed or dead meanwhile."""

import shutil
import socket
import sqlite3
import time
from pathlib import Path

import pytest
import yaml

from unsee_dist.tracking import mlflow_run, mlflow_sink
from unsee_dist.tracking.environment import describe
from unsee_dist.tracking.metrics_file import MetricsFile
from unsee_dist.tracking.mlflow_parent import ParentRun
from unsee_dist.tracking.mlflow_run import RunDescription, connect
from unsee_dist.tracking.mlflow_sink import MlflowSink

SWEEP = RunDescription("sweeps", "a sweep", {"trials": "2"})


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """An empty database with MLflow's tables, which take it seconds to make."""
    path = tmp_path_factory.mktemp("tables") / "mlflow.db"
    connect(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # artifacts go below the current folder
    monkeypatch.setattr(mlflow_sink, "EVERY_S", 0.1)
    return f"sqlite:///{shutil.copy(tables, tmp_path / 'mlflow.db')}"


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "sweep"
    (folder / "report" / "plots").mkdir(parents=True)
    return folder


def _report(sweep, **files):
    for name, text in files.items():
        (sweep / "report" / name.replace("__", "/")).write_text(text)


def _parent(sweep, uri, warn=print):
    return ParentRun(sweep, SWEEP, sweep / "report", uri, warn)


def _trial(sweep, name, steps=3):
    """The folder of a trial whose training has written its lines and ended."""
    folder = sweep / "trials" / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"run": {"name": name}, "train": {"lr": 1e-4}}))
    file = MetricsFile(folder / "metrics.jsonl")
    for step in range(1, steps + 1):
        file.write({"step": step, "loss": 1 / step, "time": time.time()})
    file.close()
    return folder


def _train(folder, variables):
    """What the trial's training does with MLflow."""
    tree = yaml.safe_load((folder / "config.yaml").read_text())
    return MlflowSink(folder, describe(folder.name, tree, variables), variables["MLFLOW_TRACKING_URI"])


def _runs(uri):
    client = connect(uri)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return {run.info.run_name: run for run in runs}, len(runs)


def _losses(uri, run_id):
    return [metric.step for metric in connect(uri).get_metric_history(run_id, "loss")]


def _artifacts(run):
    place = Path(run.info.artifact_uri.removeprefix("file://"))
    return {str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()}


def _until(holds, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def test_one_parent_with_its_trials_and_the_newest_report_also_after_a_restart(sweep, uri):
    parent = _parent(sweep, uri)
    variables = parent.environment()
    assert variables["MLFLOW_PARENT_RUN_ID"] == parent.run_id
    assert _train(_trial(sweep, "a"), variables).close(60)
    _report(sweep, **{"table.md": "one trial", "plots__curves.png": "a picture", ".half.md": "being written"})
    _until(lambda: (sweep / ".." / "mlruns").exists())
    _report(sweep, **{"table.md": "two trials"})
    parent.tag("best.train.lr", "0.0001")
    assert parent.close("KILLED", 60)
    first = parent.run_id

    again = _parent(sweep, uri)
    assert _train(_trial(sweep, "b"), again.environment()).close(60)
    _report(sweep, **{"table.md": "the end"})
    assert again.close(timeout_s=60)
    runs, count = _runs(uri)
    assert (set(runs), count) == ({"a sweep", "a", "b"}, 3)
    assert again.run_id == first
    assert [runs[name].data.tags["mlflow.parentRunId"] for name in "ab"] == [first, first]
    assert (runs["a sweep"].info.status, runs["a sweep"].data.params) == ("FINISHED", {"trials": "2"})
    assert runs["a sweep"].data.tags["best.train.lr"] == "0.0001"
    assert _artifacts(runs["a sweep"]) == {"table.md": "the end", "plots/curves.png": "a picture"}


def test_a_trial_that_ended_while_the_server_was_dead_arrives_once_below_its_parent(sweep, uri, monkeypatch):
    monkeypatch.setitem(mlflow_run.QUIET, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    sentences = []
    dead = f"http://127.0.0.1:{_unused_port()}"
    parent = _parent(sweep, dead, sentences.append)
    variables = parent.environment()
    assert "MLFLOW_PARENT_RUN_ID" not in variables
    trial = _trial(sweep, "a")
    assert not _train(trial, variables).close(5)
    assert not parent.send_left(trial, timeout_s=5)
    assert not parent.close(timeout_s=5)
    assert f"MLflow at {dead} does not answer" in sentences[0]

    for _ in range(2):
        later = _parent(sweep, uri, sentences.append)
        assert later.send_left(trial, timeout_s=60)
        assert later.close(timeout_s=60)
    runs, count = _runs(uri)
    assert count == 2
    assert runs["a"].data.tags["mlflow.parentRunId"] == later.run_id
    assert runs["a"].info.status == "FINISHED"
    assert _losses(uri, runs["a"].info.run_id) == [1, 2, 3]


def test_trials_that_began_before_the_parent_was_known_or_were_killed_are_put_right(sweep, uri):
    parent = _parent(sweep, uri)
    variables = parent.environment()
    early = _train(
        _trial(sweep, "early"), {k: v for k, v in variables.items() if k != "MLFLOW_PARENT_RUN_ID"}
    )
    assert early.close(60, "FAILED")
    client = connect(uri)
    experiment = client.get_experiment_by_name("sweeps").experiment_id
    tags = {
        "unsee.parent": variables["UNSEE_PARENT_KEY"],
        "mlflow.parentRunId": variables["MLFLOW_PARENT_RUN_ID"],
    }
    client.create_run(experiment, tags=tags, run_name="killed")
    client.create_run(experiment, run_name="a stranger")
    assert parent.close(timeout_s=60)
    runs, _ = _runs(uri)
    assert runs["early"].data.tags["mlflow.parentRunId"] == parent.run_id
    states = {name: run.info.status for name, run in runs.items()}
    assert states == {"early": "FAILED", "killed": "KILLED", "a stranger": "RUNNING", "a sweep": "FINISHED"}
    assert "mlflow.parentRunId" not in runs["a stranger"].data.tags


def test_a_database_that_is_locked_is_said_and_gets_everything_when_it_is_free(sweep, uri):
    sentences = []
    holder = sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    parent = _parent(sweep, uri, sentences.append)
    trial = _trial(sweep, "a")
    _until(lambda: sentences)
    assert "database is locked" in sentences[0]
    holder.execute("ROLLBACK")
    holder.close()
    assert parent.send_left(trial, timeout_s=60)
    assert parent.close(timeout_s=60)
    assert _runs(uri)[1] == 2


def test_a_database_that_is_read_only_is_said_and_nothing_else_happens(sweep, uri):
    sentences = []
    path = uri.removeprefix("sqlite:///")
    parent = _parent(sweep, f"sqlite:///file:{path}?mode=ro&uri=true", sentences.append)
    _until(lambda: sentences)
    assert "readonly database" in sentences[0]
    assert not parent.close(timeout_s=20)
    assert "the same command sends the rest when the server answers" in sentences[-1]
    assert _runs(uri)[1] == 0


def _unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_what_is_left_of_a_trial_whose_record_holds_a_password_arrives_without_it(sweep, uri):
    """Earlier versions wrote the settings as they were."""
    sentences = []
    parent, trial = _parent(sweep, uri, sentences.append), _trial(sweep, "a")
    mix = {"data": {"mix": "2 s3://me:secret-word@bucket/corpus, 1 mine"}, "run": {"name": "a"}}
    (trial / "config.yaml").write_text(yaml.safe_dump(mix))
    assert parent.send_left(trial, timeout_s=60), sentences
    assert parent.close(timeout_s=60)
    sent = _runs(uri)[0]["a"].data.params
    assert sent["data.mix"] == "2 s3://***@bucket/corpus, 1 mine"
