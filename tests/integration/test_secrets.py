"""A password, a token and the home folder, planted in each place that takes them, are in nothing that is written."""

from __future__ import annotations

import base64
import contextlib
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
    told = [f"run.dir={tmp_path / 'run'}", f"data.shards={home / 'shards'}", "track.mlflow=true"]
    env = making.environment(HF_TOKEN=TOKEN, MLFLOW_TRACKING_PASSWORD=SECRET, HOME=str(home))
    command = making.command("python", 1, tiny.config, *told)
    dead = f"http://me:{SECRET}@127.0.0.1:9/a?token={SECRET}"
    done = making.run(command, env=env | {"MLFLOW_TRACKING_URI": dead})
    assert done.returncode == 0, done.stderr
    assert "MLflow at http://***@127.0.0.1:9/a?token=*** " in done.stdout + done.stderr
    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    sent = making.run(command, env=env | {"MLFLOW_TRACKING_URI": database})  # the same command sends the rest
    assert sent.returncode == 0, sent.stderr
    said = "".join([done.stdout, done.stderr, sent.stdout, sent.stderr])
    assert not [secret for secret in (SECRET, TOKEN) if secret in said]
    assert found_in(tmp_path, SECRET, TOKEN) == []
    assert b"~/shards" in (tmp_path / "mlflow.db").read_bytes()
    assert str(home).encode() not in (tmp_path / "mlflow.db").read_bytes()


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
