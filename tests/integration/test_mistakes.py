"""Mistakes of every command: one sentence that names what was given, exit code 2, no traceback, nothing written.

In one process: starting `unsee` takes most of a second. Those of a run on ranks are in test_bad_input.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from unsee_dist import cli
from unsee_dist.errors import ExitCode

LONG = "x" * 300  # no file system takes such a name
PREPARE = ("prepare", "good.txt", "--out", "out")
MISTAKES = [
    *(
        ("prepare", given, "--out", "out")
        for given in ("none.txt", "folder", "*.none", "bytes.txt", "numbers.jsonl")
    ),
    *(
        ("prepare", given, "--out", "out")
        for given in ("wide.csv", "{a,b.tar", "nosuch://x/y.txt", "good.txt/in.txt")
    ),
    ("prepare", "half.tar", "--out", "out"),
    ("prepare", LONG, "--out", "out"),
    *(
        ("prepare", "good.txt", "--out", given)
        for given in ("good.txt", "good.txt/x", "other", LONG, f"new/{LONG}")
    ),
    (*PREPARE, "--split", "word"),
    (*PREPARE, "--shard-sentences", "7"),
    (*PREPARE, "--processes", "0"),
    (*PREPARE, "--engine", "dask"),
    (*PREPARE, "--min-words", "90"),
    (*PREPARE, "--seed", "-1"),
    (*PREPARE, "--dev", "500"),
    (*PREPARE, "--keep-language", "xx"),
    (*PREPARE, "--tokenizer", "./nowhere"),
    (*PREPARE, "--tokenizer", f"./{LONG}"),
    *(("shards", "info", given) for given in ("nowhere", "folder", "good.txt", "good.txt/x", LONG)),
    ("shards", "head", "folder"),
    ("shards", "verify", "good.txt"),
    *(("config", "show", given) for given in ("cut.yaml", "list.yaml", "folder", "good.txt/x.yaml", LONG)),
    ("config", "check", "base", "train.btach=3"),
    ("config", "show", "base", "train.lr"),
    *(("checkpoint", "ls", given) for given in ("nowhere", "good.txt")),
    ("checkpoint", "rm", "run", "step-00000001"),
    *(("export", given, "--out", "out") for given in ("nowhere", "folder", "run", "half", LONG)),
    *(("export", "run", "--out", given) for given in ("good.txt", "other", LONG)),
    ("evaluate", "tfidf"),
    ("evaluate", "tfidf", "--tier", "sst"),
    *(("evaluate", "tfidf", "--tasks", given) for given in ("nowhere", "good.txt", "tasks", LONG)),
    ("evaluate", LONG, "--tasks", "sound"),
    ("evaluate", "folder", "--tasks", "sound"),
    ("evaluate", "tfidf", "--tasks", "sound", "--shard", "9/2"),
    ("compare", "tfidf"),
    ("compare", "tfidf", "run"),
    ("compare", LONG, "run"),
    ("sweep",),
    ("sweep", "nowhere"),
    ("sweep", "cut.yaml"),
    ("sweep", LONG),
    *(("sweep", flag, given) for flag in ("--status", "--stop", "--resume") for given in ("folder", LONG)),
    ("report", "folder"),
    *(("init", given) for given in ("good.txt", "good.txt/x", LONG)),
    ("bench", "--only", "nothing"),
    ("train",),
    ("train", "nowhere"),
    ("train", "base", "a.b=1"),
]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with something wrong of every kind, and a little that is right."""
    here = tmp_path_factory.mktemp("mistakes")
    for folder in ("folder", "run", "half", "other", "tasks", "sound"):
        (here / folder).mkdir()
    texts = {
        "good.txt": "\n".join(f"one small sentence number {number} of five" for number in range(50)),
        "numbers.jsonl": '{"text": 3}\n',
        "wide.csv": "text,b\n1,2,3\n",
        "cut.yaml": "train: [1\n",
        "list.yaml": "- 1\n",
        "run/config.yaml": "run: {name: x}\n",
        "half/config.json": "{",
        "other/file": "",
        "tasks/a.tsv": "foo\tbar\n1\t2\n",
        "sound/a.tsv": "sentence1\tsentence2\tscore\na\tb\t1\nc\td\t2\n",
    }
    for name, text in texts.items():
        (here / name).write_text(text, encoding="utf-8")
    (here / "bytes.txt").write_bytes(bytes(range(256)))
    (here / "half.tar").write_bytes(b"a.txt".ljust(512, b"\0"))
    return here


def test_there_are_forty_of_them() -> None:
    assert len(set(MISTAKES)) == len(MISTAKES) >= 40


@pytest.mark.parametrize("command", MISTAKES, ids=lambda command: " ".join(command)[:50])
def test_a_mistake_is_a_sentence(
    command: tuple[str, ...], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "argv", ["unsee", *command])
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as ended:
        cli.main()
    output = capsys.readouterr().err
    assert ended.value.code == ExitCode.MISTAKE, output
    assert output.strip()
    assert "Traceback" not in output
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before
