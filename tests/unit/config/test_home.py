"""`~` is the home folder in every path that is given as key=value, in a file, or behind an equals sign; no path has a NUL."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from unsee_dist.cli import app
from unsee_dist.config import ConfigError, load
from unsee_dist.config.section import at_home
from unsee_dist.errors import UserError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("~/x", "{home}/x"),
        ("3 ~/wiki, 1 ~/mine", "3 {home}/wiki, 1 {home}/mine"),
        ("./~nobody-of-this-name/x", "./~nobody-of-this-name/x"),
        ("a~/x", "a~/x"),
        ("x~", "x~"),
        ("data/x", "data/x"),
        ("s3://a/~/b", "s3://a/~/b"),
    ],
)
def test_a_home_folder_at_the_start_of_a_path(given: str, expected: str, home: Path) -> None:
    assert at_home(given) == expected.format(home=home)


def test_a_user_who_is_not_here_is_a_sentence_and_no_folder_of_that_name() -> None:
    for given in ("~nobody-of-this-name/x", "3 ~/wiki, 1 ~nobody-of-this-name/x"):
        with pytest.raises(
            UserError, match=r"~nobody-of-this-name/ is the home folder of a user .* Write \./~"
        ):
            at_home(given)


@pytest.mark.parametrize(
    "key",
    ["run.dir", "model.encoder", "data.shards", "data.mix", "evaluate.sts", "evaluate.retrieval", "resume"],
)
def test_every_setting_that_is_a_path(key: str, home: Path) -> None:
    section, _, name = key.rpartition(".")
    config = load("base", [f"{key}=~/x"])
    assert getattr(getattr(config, section) if section else config, name) == f"{home}/x"


@pytest.mark.parametrize(
    "text", ['data: {shards: "a\\0b"}', 'evaluate: {sts: ["a", "b\\0c"]}', 'extends: "a\\0b"']
)
def test_a_nul_in_a_path_is_a_sentence(text: str, home: Path) -> None:
    (home / "mine.yaml").write_text(text + "\n")
    with pytest.raises(ConfigError, match="a path has no NUL character"):
        load(str(home / "mine.yaml"))


def test_a_file_is_found_in_the_home_folder_and_extends_from_there(home: Path) -> None:
    (home / "mine.yaml").write_text("extends: base.yaml\nrun: {dir: ~/runs/a}\n")
    (home / "other.yaml").write_text("extends: ~/mine.yaml\n")
    assert load("~/other.yaml").run.dir == f"{home}/runs/a"


def test_an_option_behind_an_equals_sign(home: Path) -> None:
    (home / "text.txt").write_text("one sentence that is long enough\nand here another one of them\n")
    done = CliRunner().invoke(app, ["prepare", "~/text.txt", "--out=~/corpus"])
    assert done.exit_code == 0, done.output
    assert (home / "corpus" / "index.json").is_file()
