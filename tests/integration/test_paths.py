"""Paths that no file can have, in every argument and every setting that takes a path: a sentence, exit code 2, nothing written.

A NUL cannot be in an argument of a process: it comes out of files (test_home.py) and of Python.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import typer
from integration import tiny as launch
from integration.tiny import Tiny

from unsee_dist import cli
from unsee_dist.config.section import PathText, Section
from unsee_dist.config.sections import RunConfig
from unsee_dist.errors import ExitCode

PATHS = {
    "a name too long": "x" * 300,
    "a path too long": "x/" * 3000 + "x",
    "a link to itself": "loop",
    "below a link to itself": "loop/x",
    "no such home": "~nobody-of-this-name/x",
    "below a file": "good.txt/x",
}
P = "PATH"
PLACES = [
    ("prepare", P, "--out", "new"),
    ("prepare", "good.txt", P, "--out", "new"),
    ("prepare", "good.txt", "--out", P),
    ("prepare", "good.txt", "--out", "new", "--tokenizer", P),
    *(("shards", command, P) for command in ("info", "head", "verify")),
    ("config", "show", P),
    ("config", "check", P),
    ("train", P),
    *(("checkpoint", command, P) for command in ("ls", "verify")),
    ("checkpoint", "rm", P, "step-00000001"),
    ("export", P, "--out", "new"),
    ("evaluate", P, "--tasks", "sound"),
    ("evaluate", "tfidf", "--tasks", P),
    ("compare", P, "tfidf", "--out", "new"),
    ("reproduce", "objectives", "--out", P, "evaluate.sts=x.tsv"),
    ("reproduce", "objectives", "--out", "new", "--tasks", P),
    ("sweep", P),
    *(("sweep", flag, P) for flag in ("--resume", "--status", "--stop")),
    ("sweep", "sweep.yaml", f"sweep.dir={P}"),
    ("runs", P),
    ("report", P),
    ("doctor", P),
    ("init", P),
    ("bench", P),
    ("bench", "base", "--only", "order", "--out", P),
    ("bench", "base", "--only", "training", "--peer-unsee", P),
]


def path_settings(section: type[Section] = RunConfig, before: str = "") -> Iterator[str]:
    """The keys of all settings that take a path, as their types say."""
    for name, field in section.model_fields.items():
        if isinstance(field.default, Section):
            yield from path_settings(type(field.default), f"{name}.")
        elif get_args(PathText)[-1] in field.metadata or PathText in get_args(field.annotation):
            yield f"{before}{name}"


SETTINGS = list(path_settings())


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("paths")
    for folder in ("run", "sound"):
        (here / folder).mkdir()
    (here / "loop").symlink_to("loop")
    texts = {
        "good.txt": "\n".join(f"one small sentence number {number} of five" for number in range(50)),
        "sound/a.tsv": "sentence1\tsentence2\tscore\na\tb\t1\nc\td\t2\n",
        "run/config.yaml": "run: {name: x}\n",
        "sweep.yaml": "extends: base.yaml\ntrain: {steps: 100}\nevaluate: {sts: x.tsv}\n"
        "space: {train.lr: {loguniform: [1e-5, 1e-3]}}\n",
    }
    for name, text in texts.items():
        (here / name).write_text(text, encoding="utf-8")
    return here


def refused(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What a command says, which ends with 2 and without a traceback."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "argv", ["unsee", *command])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr().err
    assert ended.value.code == ExitCode.MISTAKE, printed
    assert "Traceback" not in printed
    return printed


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("place", PLACES, ids=" ".join)
def test_an_argument(
    place: tuple[str, ...],
    kind: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(here)
    before = sorted(here.rglob("*"))
    message = refused(tuple(each.replace(P, PATHS[kind]) for each in place), monkeypatch, capsys)
    assert PATHS[kind].split("/")[0] in message
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("key", [key for key in SETTINGS if key != "resume"])
def test_a_setting(
    key: str, kind: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    before = sorted(here.rglob("*"))
    given = f"1 {PATHS[kind]}" if key == "data.mix" else PATHS[kind]
    message = refused(("config", "check", "base", f"{key}={given}"), monkeypatch, capsys)
    assert PATHS[kind].split("/")[0] in message
    assert sorted(here.rglob("*")) == before


def test_every_setting_and_every_argument_that_is_a_path_is_in_the_tables() -> None:
    assert set(SETTINGS) == {
        *(
            "resume",
            "run.dir",
            "model.encoder",
            "data.shards",
            "data.mix",
            "evaluate.sts",
            "evaluate.retrieval",
        )
    }
    written = [" ".join(place) for place in PLACES]
    elsewhere = {"export out", "compare out"}  # test_where_a_result_goes
    for command, parameter in path_parameters(typer.main.get_command(cli.app), ()):
        places = [each for each in written if each.startswith(command)]
        found = [each for each in places if f"--{parameter} {P}" in each or each.startswith(f"{command} {P}")]
        assert found or f"{command} {parameter}" in elsewhere, (command, parameter)


def path_parameters(command: object, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The commands with a parameter that is a Path, and its option ("" of an argument)."""
    for name, each in getattr(command, "commands", {}).items():
        yield from path_parameters(each, (*path, name))
    callback = getattr(command, "callback", None)
    if callback is None or hasattr(command, "commands"):
        return
    for name, hint in inspect.get_annotations(callback, eval_str=True).items():
        if Path in (hint, *get_args(hint)) or Path in get_args(get_args(hint)[0] if get_args(hint) else None):
            yield " ".join(path), name.replace("_", "-")


@pytest.mark.slow
@pytest.mark.parametrize("kind", PATHS)
def test_where_a_result_goes(
    kind: str,
    tiny: Tiny,
    place: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of a run that is complete and has its scores."""
    monkeypatch.chdir(here)
    run = tiny.folder / "result"
    if not run.exists():
        launch.succeed(launch.command("unsee", 1, tiny.config, f"run.dir={run}"), timeout_s=400)
        for model in (str(run), "tfidf"):
            launch.succeed(
                [str(launch.BIN / "unsee"), "evaluate", model, "--tasks", str(place / "tasks")],
                cwd=here,
                timeout_s=400,
            )
    before = sorted(here.rglob("*"))
    commands = [("export", str(run))]
    if kind != "a link to itself":  # which is not in the way of loop.md
        commands.append(("compare", str(run), "tfidf"))
    for command in commands:
        assert PATHS[kind].split("/")[0] in refused((*command, "--out", PATHS[kind]), monkeypatch, capsys)
    assert sorted(here.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_of_a_run(key: str, kind: str, tiny: Tiny, here: Path) -> None:
    given = f"1 {PATHS[kind]}" if key == "data.mix" else PATHS[kind]
    folder = [] if key == "run.dir" else [f"run.dir={here / 'new'}"]
    done = launch.run(launch.command("unsee", 1, tiny.config, *folder, f"{key}={given}"), cwd=here)
    assert done.returncode == ExitCode.MISTAKE, done.stderr
    assert "Traceback" not in done.stderr
    assert PATHS[kind].split("/")[0] in done.stderr
    assert not (here / "new").exists()
