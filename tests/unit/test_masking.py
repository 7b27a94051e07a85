"""No password, token or home folder in a text that leaves the process; and nothing else is changed in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from unsee_dist.config import load
from unsee_dist.config.mistakes import ConfigError
from unsee_dist.config.section import Section
from unsee_dist.config.sections import RunConfig
from unsee_dist.errors import UserError, report
from unsee_dist.log import LOG
from unsee_dist.masking import has_secret, masked, published
from unsee_dist.sweep.load import load_sweep
from unsee_dist.sweep.settings import SweepSettings

SECRET = "Pa55-w0rd"
KEY = "3xAmpLe-0f_4-kEy"
HIDDEN = {
    f"s3://me:{SECRET}@host/x": "s3://***@host/x",
    f"s3://{SECRET}@host/x": "s3://***@host/x",
    f"https://me:{SECRET}@host:80/x, 1 data/mine": "https://***@host:80/x, 1 data/mine",
    f"3 s3://a:{SECRET}@b/x, 1 s3://c:{SECRET}@d/y": "3 s3://***@b/x, 1 s3://***@d/y",
    f"postgresql://me:{SECRET}/a@b@host/db": "postgresql://***@host/db",
    f"mysql+pymysql://me:{SECRET}@host/db?ssl={SECRET}": "mysql+pymysql://***@host/db?ssl=***",
    f"https://host/x.txt?X-Amz-Signature={SECRET}&Expires=3": "https://host/x.txt?X-Amz-Signature=***&Expires=***",
    f"s3://AK:{SECRET},'more\"@bucket/x": "s3://***@bucket/x",
    f"s3:/AK:{SECRET}@bucket/x": "s3:/***@bucket/x",  # what a Path makes of a URL
    f"https:/host/x?key={SECRET}": "https:/host/x?key=***",
    f"https://host/x?{SECRET}": "https://host/x?***",
    f"https://host/x#access_token={SECRET}&state=3": "https://host/x#access_token=***&state=***",
    f"https://host/x?a=b#id_token={SECRET}": "https://host/x?a=***#id_token=***",
    f"https://host/x;jsessionid={SECRET}/y;p=1?a={SECRET};b=2": "https://host/x;jsessionid=***/y;p=***?a=***;b=***",
    f"https://host/file/id#{KEY}": "https://host/file/id#***",
    f"https://host/x;{KEY}": "https://host/x;***",
    f"1 s3://b/x;token={SECRET}, 2 s3://c/y#sig={SECRET}": "1 s3://b/x;token=*** 2 s3://c/y#sig=***",
    f"s3:/b/x#sig={SECRET}": "s3:/b/x#sig=***",
    f"cannot open 'http://u:{SECRET}@h/p' (404)": "cannot open 'http://***@h/p' (404)",
}
PLAIN = (
    *(
        "data/wiki1m",
        "hf://datasets/a/b",
        "sqlite:////tmp/mlflow.db",
        "mteb/stsbenchmark-sts:test",
        "me@host: no URL",
    ),
    *("https://host:8080/a/b", "file:///a@b/c", "what is it?", "a=b&c=d", "see https://host/x#part."),
    *(
        "https://host/x#L10-L20; see https://host/y;",
        "https://host/x#how-to-write-a-long-title",
        "dataset:a/b,c#train",
    ),
    *("http://host/x;v/y", "hf://datasets/a/b@main/x;y"),
)


@pytest.mark.parametrize("text", HIDDEN)
def test_the_secret_of_a_url_is_hidden_and_the_rest_stays(text: str) -> None:
    assert masked(text) == HIDDEN[text]
    assert has_secret(text)
    assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize("text", PLAIN)
def test_a_text_without_a_secret_stays_what_it_is(text: str) -> None:
    assert masked(text) == text
    assert not has_secret(text)


def test_secrets_of_the_environment_are_hidden_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY"):
        monkeypatch.setenv(name, f"{name}-{SECRET}")
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    monkeypatch.setenv("SOME_TOKEN", str(Path(__file__)))  # a path to one
    assert masked(f"401: HF_TOKEN-{SECRET} and AWS_SECRET_ACCESS_KEY-{SECRET}, abc, {__file__}") == (
        f"401: *** and ***, abc, {__file__}"
    )


@pytest.mark.parametrize(
    ("address", "secret"),
    [
        ("http://127.0.0.1:1/ml?token=Sekret1234567", "Sekret1234567"),
        ("http://127.0.0.1:1/ml?sslmode=require&sig=a%2Fb%2Fc12345", "a/b/c12345"),
        ("http://127.0.0.1:1/ml?sslmode=require&sig=a%2Fb%2Fc12345", "a%2Fb%2Fc12345"),
        ("postgresql://me:Pass%21word@db/mlflow", "Pass!word"),
        ("http://Lonely1234@proxy:3128", "Lonely1234"),
    ],
)
@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_URI", "HTTPS_PROXY"])
def test_what_an_address_in_a_variable_holds_is_hidden_also_without_the_rest_of_it(
    monkeypatch: pytest.MonkeyPatch, name: str, address: str, secret: str
) -> None:
    """urllib3 repeats the path and the query alone."""
    monkeypatch.setenv(name, address)
    text = f"Max retries exceeded with url: /ml?token={secret}/api/2.0, require it"
    assert masked(text) == text.replace(secret, "***")


def test_what_a_store_of_fsspec_takes_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the form that `credentials` names, and as its own variables."""
    headers = {"client_kwargs": {"headers": {"Authorization": f"Bearer {KEY}"}}, "block_size": "1048576"}
    monkeypatch.setenv("FSSPEC_HTTP", json.dumps(headers))
    monkeypatch.setenv("FSSPEC_FTP_PASSWORD", SECRET)
    monkeypatch.setenv("FSSPEC_WEBDAV", "{not JSON")
    assert masked(f"headers: Bearer {KEY}, {KEY!r}, {SECRET}, 1048576") == "headers: ***, '***', ***, 1048576"


def test_the_home_folder_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert published("/home/me/data and /home/me, /home/metoo/x") == "~/data and ~, /home/metoo/x"
    assert published(f"s3://a:{SECRET}@b/home/me") == "s3://***@b~"
    monkeypatch.setenv("HOME", "/")
    assert published("/a/b") == "/a/b"


def test_what_is_printed_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://me:{SECRET}@host/x"
    report(UserError(f"{url} is wrong"), "unsee")
    report(KeyError(url), "unsee")  # a bug: with its traceback
    LOG.warning("%s is slow", url)
    LOG.info(f"{url} is quick")
    printed = capsys.readouterr().err
    assert SECRET not in printed
    assert printed.count("http://***@host/x") == 4
    assert "KeyError" in printed


def takes_text(hint: object) -> bool:
    return hint is str or (get_origin(hint) is not Literal and any(map(takes_text, get_args(hint))))


def taking(section: type[Section], before: str = "") -> Iterator[str]:
    """Every setting that takes text, whatever it is for."""
    for name, field in section.model_fields.items():
        if isinstance(field.default, Section):
            yield from taking(type(field.default), f"{name}.")
        elif takes_text(field.annotation):
            yield f"{before}{name}"


OF_A_RUN, OF_A_SWEEP = list(taking(RunConfig)), list(taking(SweepSettings, "sweep."))


def test_they_are_found_by_their_types() -> None:
    assert {
        "resume",
        "run.name",
        "run.dir",
        "model.encoder",
        "data.shards",
        "data.mix",
        "evaluate.sts",
    } <= set(OF_A_RUN)
    assert {"sweep.name", "sweep.dir", "sweep.metric"} <= set(OF_A_SWEEP)


SWEEP = (
    "extends: base.yaml\ntrain: {steps: 100}\nevaluate: {sts: x.tsv}\n"
    "space: {train.lr: {loguniform: [1e-5, 1e-3]}}\n"
)


@pytest.mark.parametrize("key", [*OF_A_RUN, *OF_A_SWEEP, "space.data.shards", "space.model.encoder"])
@pytest.mark.parametrize(
    "end", ["/corpus", "/corpus?sig=SECRET", "/corpus#token=SECRET", "/corpus;token=SECRET"]
)
def test_a_sweep_with_a_secret_is_refused_and_does_not_show_it(key: str, end: str, tmp_path: Path) -> None:
    """sweep.yaml, the ledger and MLflow would have it."""
    userinfo = f"me:{SECRET}@" if end == "/corpus" else ""
    address = f"s3://{userinfo}host{end.replace('SECRET', SECRET)}"
    value = f"{{choice: [a, '{address}']}}" if key.startswith("space.") else address
    (tmp_path / "mine.yaml").write_text(SWEEP)
    with pytest.raises(ConfigError) as caught:
        load_sweep(str(tmp_path / "mine.yaml"), [f"{key}={value}"])
    assert SECRET not in str(caught.value)
    assert "***" in str(caught.value)


@pytest.mark.parametrize("key", OF_A_RUN)
def test_a_setting_that_holds_a_secret_is_refused_and_not_shown(key: str) -> None:
    """It would stand in config.yaml, where the same command must be able to read it again."""
    address = f"s3://me:{SECRET}@{'long' * 20}/corpus"
    with pytest.raises(ConfigError) as caught:
        load("unsee-vicreg", [f"{key}={address}"])
    message = str(caught.value)
    assert SECRET not in message
    assert f"{key} = s3://***@long" in message
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in message


def test_a_run_is_written_to_a_folder() -> None:
    with pytest.raises(ConfigError, match=r"run\.dir = s3://b/runs — command line — is a URL"):
        load("unsee-vicreg", ["run.dir=s3://b/runs"])
    assert load("unsee-vicreg", [f"run.dir={os.curdir}/x", "data.shards=s3://b/c"]).data.shards == "s3://b/c"
