"""An address of MLflow is one, or a sentence: MLflow itself takes any other text for a folder, and fails in each try."""

from __future__ import annotations

from pathlib import Path

import pytest

from unsee_dist.errors import UserError
from unsee_dist.tracking.environment import describe
from unsee_dist.tracking.mlflow_sink import MlflowSink, tracking_uri

RIGHT = (
    *("http://127.0.0.1:5000", "https://me:pw@host/mlflow", "sqlite:///mlflow.db", "sqlite:////a/mlflow.db"),
    *(
        "postgresql://u:p@h/db",
        "postgresql+psycopg2://h/db",
        "mysql+pymysql://h/db",
        "http://[::1]:5000",
        "databricks",
        "databricks://p",
        "uc",
    ),
)
WRONG = (
    "localhost:5000",
    "mlflow.db",
    "/a/mlflow.db",
    "http:/host",
    "http://",
    "sqlite://x",
    "htp://host",
    "http://localhost:99999",
    "http://localhost:0",
    "http://localhost:port",
    "https://:5000",
    "http://[::1",
    "postgresql://h:70000/db",
    "file:///a",
    "?",
)


@pytest.mark.parametrize("uri", RIGHT)
def test_an_address_is_taken_as_it_is(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking_uri() == uri


@pytest.mark.parametrize("uri", WRONG)
def test_what_is_no_address_is_a_sentence(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError) as caught:
        tracking_uri()
    assert str(caught.value).startswith(
        f"MLFLOW_TRACKING_URI = {uri} is not an address of an MLflow server or file. Write http://HOST:PORT"
    )


def test_databricks_without_credentials_is_one_sentence_and_no_raw_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    sentences: list[str] = []
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    sink = MlflowSink(tmp_path, describe("x", {}), "databricks", warn=sentences.append)
    assert sink.close(timeout_s=120) is False
    assert any("MLflow at databricks" in sentence for sentence in sentences)
    assert "databricks_utils" not in capfd.readouterr().err


def test_warnings_and_parameters_hold_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    secret = "Pa55-w0rd"
    description = describe("x", {"data": {"mix": f"1 s3://me:{secret}@b/c", "shards": "/home/me/corpus"}})
    assert description.params == {"data.mix": "1 s3://***@b/c", "data.shards": "~/corpus"}
    sentences: list[str] = []
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    sink = MlflowSink(tmp_path, description, f"http://me:{secret}@127.0.0.1:9/a", warn=sentences.append)
    assert sink.close(timeout_s=60) is False
    assert sentences
    assert all("http://***@127.0.0.1:9/a" in sentence for sentence in sentences)
    assert secret not in "".join([*sentences, *(path.read_text() for path in tmp_path.iterdir())])
