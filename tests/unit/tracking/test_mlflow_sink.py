"""Every line of metrics.jsonl is in MLflow exactly once, whoever was killed; training never waits."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from unsee_dist.errors import UserError
from unsee_dist.tracking import mlflow_run, mlflow_sink, unsent
from unsee_dist.tracking.metrics_file import MetricsFile, added, cut_back
from unsee_dist.tracking.mlflow_model import ModelDescription, log_model
from unsee_dist.tracking.mlflow_run import CorpusDescription, RunDescription
from unsee_dist.tracking.mlflow_sink import MlflowSink, tracking_uri
from unsee_dist.tracking.unsent import load

DESCRIBED = RunDescription("laws", "a run", {f"section.key{i}": str(i) for i in range(150)}, {"python": "3"})


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One database for several tests: to make its tables takes 9 s of processor time."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('server') / 'mlflow.db'}"
    _client(uri).search_experiments()
    return uri


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    return path


def _write(folder, steps, evaluated=()):
    # The clock of the day: MLflow itself drops a line repeated with the same time, and would hide ours.
    file = MetricsFile(folder / "metrics.jsonl")
    for step in steps:
        file.write({"step": step, "loss": 1 / (step + 1), "lr": 0.5, "time": time.time()})
        if step in evaluated:
            file.write({"step": step, "dev/sts": 70.0 + step, "dev/mrr": float("nan"), "time": time.time()})
    file.close()


def _client(uri):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _history(uri, run_id, key):
    return [(metric.step, metric.value) for metric in _client(uri).get_metric_history(run_id, key)]


def _runs(uri):
    client = _client(uri)
    return client.search_runs([e.experiment_id for e in client.search_experiments()])


def test_a_run_is_logged_whole_and_resumed_without_repeats_or_gaps(folder, uri):
    _write(folder, range(1, 2001), evaluated=(1000, 2000))
    sink = MlflowSink(folder, DESCRIBED, uri)
    sink.tag("model.best", "runs/a/best")
    assert sink.close(120)
    run = _client(uri).get_run(sink.run_id)
    assert _history(uri, sink.run_id, "loss") == [(s, 1 / (s + 1)) for s in range(1, 2001)]
    assert _history(uri, sink.run_id, "dev/sts") == [(1000, 1070.0), (2000, 2070.0)]
    assert "dev/mrr" not in run.data.metrics
    assert "time" not in run.data.metrics
    assert run.data.params == DESCRIBED.params
    assert (run.data.tags["python"], run.data.tags["model.best"]) == ("3", "runs/a/best")
    assert (run.info.status, run.info.run_name) == ("FINISHED", "a run")

    # Resumed from a checkpoint at 1,500: 1,501..2,000 are made again, and the configuration was changed.
    cut_back(folder / "metrics.jsonl", 1500)
    changed = RunDescription("laws", "a run", DESCRIBED.params | {"section.key1": "changed", "new": "1"})
    again = MlflowSink(folder, changed, uri, run_id=sink.run_id)
    _write(folder, range(1501, 2201), evaluated=(2000, 2200))
    assert again.close(120, status="KILLED")
    assert again.run_id == sink.run_id
    assert _history(uri, sink.run_id, "loss") == [(s, 1 / (s + 1)) for s in range(1, 2201)]
    assert [step for step, _ in _history(uri, sink.run_id, "dev/sts")] == [1000, 2000, 2200]
    run = _client(uri).get_run(sink.run_id)
    assert run.data.params == DESCRIBED.params | {"new": "1"}
    assert run.info.status == "KILLED"
    assert len(_runs(uri)) == 1


def test_lines_are_sent_while_the_run_goes_and_the_id_is_known(folder, uri, monkeypatch):
    monkeypatch.setattr(mlflow_sink, "EVERY_S", 0.1)
    sink = MlflowSink(folder, DESCRIBED, uri)
    file = MetricsFile(folder / "metrics.jsonl")
    for step in range(1, 4):
        file.write({"step": step, "loss": 1.0})
        file.flush()
        _until(lambda step=step: sink.run_id and len(_history(uri, sink.run_id, "loss")) == step)
    assert _client(uri).get_run(sink.run_id).info.status == "RUNNING"
    file.close()
    assert sink.close(60)


def test_a_run_that_is_gone_is_made_anew_once(folder, uri):
    _write(folder, range(1, 6))
    first = MlflowSink(folder, DESCRIBED, uri)
    assert first.close(60)
    _client(uri).delete_run(first.run_id)
    for _ in range(2):  # the checkpoint still holds the old id the second time
        sink = MlflowSink(folder, DESCRIBED, uri, run_id=first.run_id)
        assert sink.close(60)
        assert sink.run_id != first.run_id
    assert len(_runs(uri)) == 1
    assert len(_history(uri, sink.run_id, "loss")) == 5


def test_a_run_whose_making_was_not_answered_is_found_again(folder, uri):
    first = MlflowSink(folder, DESCRIBED, uri)
    assert first.close(60)
    state = unsent.FILE.read(folder)
    assert state is not None
    unsent.FILE.write(folder, replace(state, run_id=None))
    second = MlflowSink(folder, DESCRIBED, uri)
    assert second.close(60)
    assert second.run_id == first.run_id


def test_a_server_that_refuses_or_never_answers_costs_nothing_and_is_said_once(folder, uri, monkeypatch):
    monkeypatch.setattr(mlflow_sink, "EVERY_S", 0.05)
    monkeypatch.setitem(mlflow_run.QUIET, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    _write(folder, range(1, 11))
    with socket.socket() as silent:  # accepts connections, says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        sentences = []
        began = time.monotonic()
        sink = MlflowSink(
            folder, DESCRIBED, f"http://127.0.0.1:{silent.getsockname()[1]}", warn=sentences.append
        )
        sink.tag("model.best", "here")
        assert sink.run_id is None
        assert time.monotonic() - began < 0.5
        _until(lambda: sentences)
        time.sleep(0.5)
        assert not sink.close(5)
        assert len(sentences) == 2
        assert "does not answer" in sentences[0]
        assert "the same command sends the rest" in sentences[1]
    later = MlflowSink(folder, DESCRIBED, uri)
    assert later.close(60)
    assert len(_history(uri, later.run_id, "loss")) == 10
    assert _client(uri).get_run(later.run_id).data.tags["model.best"] == "here"


def test_a_bug_of_ours_is_no_server_that_does_not_answer(folder, uri, capsys):
    _write(folder, range(1, 5))
    sentences = []
    broken = RunDescription("laws", "a run", None)  # what no configuration can make
    assert not MlflowSink(folder, broken, uri, warn=sentences.append).close(60)
    printed = capsys.readouterr().err
    assert "AttributeError" in printed
    assert "in _connect" in printed
    assert "sending to MLflow: this is a bug of unsee_dist" in printed
    assert not any("does not answer" in sentence for sentence in sentences)


def test_a_bug_of_ours_after_an_outage_is_shown_too(folder, uri, capsys, monkeypatch):
    """A server that does not answer is said once; a bug behind it is another matter."""
    monkeypatch.setattr("unsee_dist.tracking.mlflow_sink.EVERY_S", 0.05)
    _write(folder, range(1, 5))
    errors = iter([ConnectionError("refused"), ConnectionError("refused"), None, None])
    deliver = MlflowSink._deliver

    def answers_later(sink, stopping):
        if (error := next(errors, None)) is not None:
            raise error
        deliver(sink, stopping)

    monkeypatch.setattr(MlflowSink, "_deliver", answers_later)
    sink = MlflowSink(folder, RunDescription("laws", "a run", None), uri, warn=lambda _: None)
    for _ in range(600):
        if next(errors, "no more") == "no more":
            break
        time.sleep(0.1)
    assert not sink.close(60)
    printed = capsys.readouterr().err
    assert printed.count("sending to MLflow: this is a bug of unsee_dist") == 1


def test_close_returns_in_time_from_a_server_that_hangs(folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        sink = MlflowSink(
            folder, DESCRIBED, f"http://127.0.0.1:{silent.getsockname()[1]}", warn=lambda _: None
        )
        time.sleep(0.2)
        began = time.monotonic()
        assert not sink.close(1)
        assert time.monotonic() - began < 2


@pytest.mark.slow
def test_a_server_killed_and_restarted_has_every_line_once(folder, tmp_path, uri, monkeypatch):
    monkeypatch.setattr(mlflow_sink, "EVERY_S", 0.1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sentences = []
    server = _server(uri, port, tmp_path)
    try:
        sink = MlflowSink(folder, DESCRIBED, f"http://127.0.0.1:{port}", warn=sentences.append)
        _write(folder, range(1, 301))
        _until(lambda: sink.run_id and len(_history(uri, sink.run_id, "loss")) == 300)
        _kill(server)
        _write(folder, range(301, 601))
        _until(lambda: sentences)
        server = _server(uri, port, tmp_path)
        _write(folder, range(601, 901))
        assert sink.close(60)
    finally:
        _kill(server)
    assert _history(uri, sink.run_id, "loss") == [(s, 1 / (s + 1)) for s in range(1, 901)]
    assert len(sentences) == 1
    assert len(_runs(uri)) == 1


def test_the_experiment_is_one_of_machine_learning_unless_somebody_has_chosen(folder, server):
    tag = {"mlflow.experimentKind": "custom_model_development"}
    _client(server).create_experiment("older")
    _client(server).create_experiment("chosen", tags={"mlflow.experimentKind": "genai_development"})
    for name in ("new", "older", "chosen"):
        assert MlflowSink(folder, replace(DESCRIBED, experiment=name), server).close(300)
        (folder / "mlflow.json").unlink()
    found = {each.name: each.tags for each in _client(server).search_experiments()}
    assert tag.items() <= found["new"].items()
    assert tag.items() <= found["older"].items()
    assert found["chosen"]["mlflow.experimentKind"] == "genai_development"


CORPUS = CorpusDescription("mine", "5c0ffee5", "data/mine", 48_000)


def test_user_source_description_and_corpus_are_those_of_the_run_and_the_corpus_is_named_once(folder, server):
    own = {"mlflow.user": "anna", "mlflow.source.name": "unsee", "mlflow.source.type": "LOCAL"}
    described = replace(DESCRIBED, tags=own, note="**vicreg** trains\n\nmore", corpus=CORPUS)
    _write(folder, range(1, 4))
    for _ in range(2):
        sink = MlflowSink(folder, described, server)
        assert sink.close(300)
    run = _client(server).get_run(sink.run_id)
    assert run.info.user_id == "anna"
    assert own.items() <= run.data.tags.items()
    assert run.data.tags["mlflow.note.content"] == described.note
    [given] = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("mine", "5c0ffee5")
    assert json.loads(given.dataset.source) == {"uri": "data/mine"}
    assert json.loads(given.dataset.profile) == {"sentences": 48_000}
    assert [(tag.key, tag.value) for tag in given.tags] == [("mlflow.data.context", "training")]


def test_a_description_that_a_person_has_written_stays(folder, server):
    described = replace(DESCRIBED, note="**vicreg** trains\n\nmore")
    first = MlflowSink(folder, described, server)
    first.tag("mlflow.note.content", "**vicreg** trains\n\nand it is better")
    assert first.close(300)
    noted = _client(server).get_run(first.run_id).data.tags["mlflow.note.content"]
    assert noted.endswith("it is better")  # our own is replaced
    _client(server).set_tag(first.run_id, "mlflow.note.content", "Mine: do not use.")
    again = MlflowSink(folder, described, server)
    again.tag("verdict", "worse")
    assert again.close(300)
    tags = _client(server).get_run(first.run_id).data.tags
    assert (tags["mlflow.note.content"], tags["verdict"]) == ("Mine: do not use.", "worse")


def test_a_number_that_never_moved_is_a_tag_at_the_end(folder, server):
    file = MetricsFile(folder / "metrics.jsonl")
    for step in range(1, 5):
        file.write({"step": step, "loss": 1.0, "decay": 0.999})
    file.close()
    sink = MlflowSink(folder, DESCRIBED, server)
    assert sink.close(300)
    run = _client(server).get_run(sink.run_id)
    assert run.data.tags["constant.decay"] == "0.999"
    assert set(run.data.metrics) == {"loss", "Loss and score/loss"}


def test_the_model_of_a_run_is_there_once_for_each_step(folder, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # artifacts go below the current folder
    model = ModelDescription("mine", 150, {"dev/sts": "71.8"}, {"unsee.best": "/runs/mine/best"})
    for each in (model, model, replace(model, step=300)):
        sink = MlflowSink(
            folder,
            DESCRIBED,
            server,
            also=lambda client, run, last, each=each: last and log_model(client, run, each),
        )
        assert sink.close(300)
    client = _client(server)
    made = {output.step: output.model_id for output in client.get_run(sink.run_id).outputs.model_outputs}
    assert sorted(made) == [150, 300]
    found = client.get_logged_model(made[150])
    assert (found.name, found.model_type, found.status) == ("mine", "sentence-encoder", "READY")
    assert (found.source_run_id, found.params) == (sink.run_id, {"dev/sts": "71.8"})
    assert found.tags["unsee.best"] == "/runs/mine/best"


def test_only_whole_lines_are_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert added(path, 0) == ([], 0)
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"st')
    lines, offset = added(path, 0)
    assert (lines, offset) == ([{"step": 1}, {"step": 2}], 24)
    assert added(path, offset) == ([], offset)


def test_the_state_is_kept_and_a_damaged_one_is_no_new_run(tmp_path):
    first = load(tmp_path, None, {"a": "1"})
    first.save(tmp_path)
    again = load(tmp_path, "given", {"b": "2"})
    assert (again.key, again.run_id, again.tags) == (first.key, "given", {"a": "1", "b": "2"})
    (tmp_path / "mlflow.json").write_text('{"key": "k", "run_')
    with pytest.raises(UserError, match=r"mlflow.json is damaged .*Delete it"):
        load(tmp_path, "given", {})


def test_the_uri_is_the_settings_then_the_environments_then_sqlite_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert tracking_uri("http://mine") == "http://mine"
    assert tracking_uri() == "http://server"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking_uri() == "sqlite:///mlflow.db"


def test_the_default_database_lies_in_the_working_folder_whatever_its_name(monkeypatch, tmp_path):
    folder = tmp_path / "runs #1, 100% of a?b=c [x] & é"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert mlflow_run.connect(tracking_uri()).search_experiments()
    assert [path.name for path in folder.iterdir()] == ["mlflow.db"]
    assert list(tmp_path.iterdir()) == [folder]


def _server(uri, port, folder):
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += [
        "--backend-store-uri",
        uri,
        "--default-artifact-root",
        str(folder / "artifacts"),
        "--workers",
        "1",
    ]
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    _until(lambda: _listens(port) or server.poll() is not None, 90)
    assert server.poll() is None, (folder / "server.log").read_text()[-2000:]
    return server


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _kill(server):
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _until(holds, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
