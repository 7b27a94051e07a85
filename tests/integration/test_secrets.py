"""A password, a token and the home folder, planted in each place that takes them, are in nothing that is written."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from integration import tiny as making
from integration.evaluating import unsee

SECRET, TOKEN = "Pa55w0rd-of-mine", "hf_tokenOfMine123"
TEXT = "".join(f"{sentence}\n" for sentence in making.corpus(60)).encode()


class Guarded(BaseHTTPRequestHandler):
    """A file for whoever knows the password."""

    def do_GET(self) -> None:
        known = base64.b64encode(f"me:{SECRET}".encode()).decode()
        allowed = self.headers.get("Authorization") == f"Basic {known}" and SECRET in self.path
        self.send_response(200 if allowed else 401)
        body = TEXT if allowed else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Not printed."""


@contextlib.contextmanager
def guarded() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Guarded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def found_in(folder: Path, *secrets: str) -> list[str]:
    """Files below a folder that hold one of the secrets, in their bytes or their names."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [
        f"{path}: {secret}"
        for path in files
        for secret in secrets
        if secret.encode() in path.read_bytes() or secret in path.name
    ]


def test_the_password_of_an_input_is_in_no_corpus(tmp_path: Path) -> None:
    with guarded() as host:
        address = f"http://me:{SECRET}@{host}/x.txt?sig={SECRET}"
        done = unsee("prepare", address, "--out", "corpus", cwd=tmp_path)
        assert done.code == 0, done.err
        again = unsee("prepare", address, "--out", "corpus", cwd=tmp_path)  # the same inputs: nothing to do
        assert again.code == 0, again.err
        refused = unsee("prepare", f"http://me:{SECRET}@{host}/x.txt", "--out", "other", cwd=tmp_path)
    assert refused.code != 0
    assert SECRET not in done.out + done.err + again.out + again.err + refused.out + refused.err
    assert "http://***@" in (tmp_path / "corpus" / "index.json").read_text()
    assert found_in(tmp_path, SECRET) == []


@pytest.mark.slow
def test_a_run_beside_a_guarded_mlflow_writes_no_password(tiny: making.Tiny, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "shards").symlink_to(tiny.shards)
    settings = [f"run.dir={tmp_path / 'run'}", f"data.shards={home / 'shards'}", "track.mlflow=true"]
    env = making.environment(HF_TOKEN=TOKEN, MLFLOW_TRACKING_PASSWORD=SECRET, HOME=str(home))
    command = making.command("python", 1, tiny.config, *settings)
    dead = f"http://me:{SECRET}@127.0.0.1:9/a?token={SECRET}"
    done = making.run(command, env=env | {"MLFLOW_TRACKING_URI": dead})
    assert done.returncode == 0, done.stderr
    assert "MLflow at http://***@127.0.0.1:9/a?token=*** " in done.stdout + done.stderr
    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    sent = making.run(command, env=env | {"MLFLOW_TRACKING_URI": database})  # the same command sends the rest
    assert sent.returncode == 0, sent.stderr
    printed = "".join([done.stdout, done.stderr, sent.stdout, sent.stderr])
    assert not [secret for secret in (SECRET, TOKEN) if secret in printed]
    assert found_in(tmp_path, SECRET, TOKEN) == []
    assert b"~/shards" in (tmp_path / "mlflow.db").read_bytes()
    assert str(home).encode() not in (tmp_path / "mlflow.db").read_bytes()


AUTHORIZATION = base64.b64encode(f"me:{SECRET}".encode()).decode()
PLANTED = {
    "HF_TOKEN": TOKEN,
    "HUGGING_FACE_HUB_TOKEN": f"{TOKEN}-old",
    "MLFLOW_TRACKING_USERNAME": "me-myself",
    "MLFLOW_TRACKING_PASSWORD": f"{SECRET}-mlflow",
    "MLFLOW_TRACKING_TOKEN": f"{SECRET}-bearer",
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": f"{SECRET}/aws",
    "AWS_SESSION_TOKEN": f"{SECRET}+session",
    "AZURE_STORAGE_ACCOUNT_KEY": f"{SECRET}==",
    "AZURE_STORAGE_CONNECTION_STRING": f"AccountName=me;AccountKey={SECRET}",
    "FSSPEC_HTTP": json.dumps({"client_kwargs": {"headers": {"Authorization": f"Basic {AUTHORIZATION}"}}}),
    "FSSPEC_FTP_PASSWORD": f"{SECRET}-ftp",
    "HTTPS_PROXY": f"http://me:{SECRET}@127.0.0.1:9",
    "WANDB_API_KEY": f"{SECRET}-wandb",
    "DATABRICKS_TOKEN": f"{SECRET}-bricks",
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_nothing_that_any_command_writes_or_prints_holds_a_secret(
    tiny: making.Tiny, place: Path, tmp_path: Path
) -> None:
    """From a guarded address to an export, with every secret of the environment in every process."""
    home = tmp_path / "home"
    home.mkdir()
    env = making.environment(**PLANTED, HOME=str(home), XDG_CACHE_HOME=str(home / ".cache"))
    database = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    dead = {
        "MLFLOW_TRACKING_URI": f"postgresql://me:{SECRET}@127.0.0.1:9/db?password={SECRET}#token={SECRET}"
    }
    sentences: list[str] = []

    def command(code: int, *arguments: object, **more: str) -> None:
        done = making.run(
            [str(making.BIN / "unsee"), *map(str, arguments)], 300, cwd=tmp_path, env=env | more
        )
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        sentences.append(done.stdout + done.stderr)

    run = home / "run"
    settings = [tiny.config, f"data.shards={home / 'corpus'}", f"run.dir={run}", "track.mlflow=true"]
    settings.append(f"evaluate.retrieval={home / 'corpus' / 'dev.tsv'}")
    with guarded() as host:
        command(0, "prepare", f"http://{host}/x.txt?sig={SECRET}", "--out", home / "corpus", "--dev", 20)
        command(2, "prepare", f"http://{host}/x.txt?wrong={TOKEN}", "--out", home / "none")
    command(
        74, "prepare", f"ftp://me:{SECRET}@127.0.0.1:9/x.txt", "--out", home / "none", FSSPEC_FTP_PASSWORD=""
    )
    command(0, "config", "check", *settings, **dead)
    command(0, "train", *settings, **dead)
    command(0, "train", *settings, **database)
    command(2, "train", *settings, f"resume=s3://me:{SECRET}@b/x;token={TOKEN}", **database)
    command(0, "doctor", **dead)
    command(0, "shards", "verify", home / "corpus")
    command(0, "checkpoint", "ls", run)
    command(0, "evaluate", run, "--tasks", place / "tasks")
    command(0, "evaluate", "tfidf", "--tasks", place / "tasks")
    command(0, "compare", run, "tfidf", "--out", home / "table")
    command(0, "export", run, "--out", home / "export")
    command(2, "evaluate", f"https://me:{SECRET}@host/model#token={TOKEN}", "--tasks", place / "tasks")
    secrets = {SECRET, TOKEN, AUTHORIZATION}
    assert [secret for secret in secrets if secret in "".join(sentences)] == []
    assert found_in(tmp_path, *secrets) == []
    assert (tmp_path / "mlflow.db").stat().st_size > 0


@pytest.mark.slow
def test_an_export_of_an_older_run_publishes_no_password_and_no_folder(
    tiny: making.Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions wrote the settings into config.yaml as they were."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    run = home / "run"
    done = making.run(making.command("python", 1, tiny.config, f"run.dir={run}"))
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["mix"] = f"2 s3://me:{SECRET}@bucket/corpus, 1 {home}/data/mine"
    config["resume"] = f"{home}/older"
    config["run"]["name"] = f"after {home}/older and s3://{SECRET}@b"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    done_export = unsee("export", str(run), "--out", "out", cwd=tmp_path)
    assert done_export.code == 0, done_export.err
    assert found_in(tmp_path / "out", SECRET, str(home)) == []
    card = (tmp_path / "out" / "README.md").read_text()
    assert "objective:" in card
    assert "mix:" not in card
    assert "resume:" not in card
