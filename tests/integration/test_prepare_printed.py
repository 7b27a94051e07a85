"""What `unsee prepare` prints, and what can be read only once: pipes, and paths of any characters."""

from __future__ import annotations

import gzip
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from integration import tiny

from unsee_dist import cli
from unsee_dist.config.load import load
from unsee_dist.data import Shards

TEXT = "\n".join(f"This is sentence number {number} of a text." for number in range(40)) + "\n"


def unsee(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of `unsee prepare` in this process."""
    sys.argv = ["unsee", "prepare", "--processes", "1", *map(str, arguments)]
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture(autouse=True)
def arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)


NAMES = [
    "plain",
    "two words",
    "[bold]red",
    "it's",
    'a "quoted" name',
    ":smile:",
    "a$b;c&d",
    "x" * 120,
    "früh-你好",
]


@pytest.mark.parametrize("name", NAMES)
def test_paths_are_printed_as_they_are_and_what_comes_next_can_be_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).mkdir()
    source, out = tmp_path / name / f"{name}.txt", tmp_path / name / "out"
    source.write_text(TEXT)
    (tmp_path / name / f"{name}.md").write_text("# Notes")
    code, printed, errors = unsee(capsys, tmp_path / name, "--out", out, "--max-words", 9)
    assert code == 0
    assert f"{out} (" in printed
    assert f"{name}/{name}.md" in errors
    line = next(line for line in printed.splitlines() if line.startswith("next: "))
    told_command = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {line.removeprefix('next: ')}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert told_command == shlex.split(line.removeprefix("next: "))
    assert told_command[:2] == ["unsee", "train"]
    assert load(told_command[2], told_command[3:]).data.shards == str(out)


def test_what_comes_next_names_the_held_out_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.txt").write_text("\n".join(tiny.corpus(50)))
    code, printed, errors = unsee(capsys, tmp_path / "t.txt", "--out", tmp_path / "out", "--dev", 3)
    assert code == 0, errors
    command = shlex.split(printed.splitlines()[-1].removeprefix("next: "))
    assert load(command[2], command[3:]).evaluate.retrieval == str(tmp_path / "out" / "dev.tsv")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--min-words", 50, "--max-words", 10], "--max-words = 10 is less than --min-words = 50"),
        (["--language", "de"], "--language = de needs --split sentence"),
        (["--max-tokens", 9], "--max-tokens = 9 needs --tokenizer"),
        (["--on-bad-record", "ignore"], "--on-bad-record = ignore must be stop or skip"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_before_reading(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[object], says: str
) -> None:
    code, _, errors = unsee(capsys, tmp_path / "nowhere.txt", "--out", tmp_path / "out", *more)
    assert (code, errors.count("\n")) == (2, 1)
    assert says in errors
    assert not (tmp_path / "out").exists()


def shell(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "unsee_dist", "prepare", "--processes", "1"]
    script = command.replace("UNSEE", shlex.join(words))
    return tiny.run(["bash", "-c", script, "bash", *map(str, arguments)])


@pytest.mark.parametrize(
    "command",
    [
        'UNSEE <(zcat "$1") --out "$2"',
        pytest.param('zcat "$1" | UNSEE /dev/stdin --out "$2"', marks=pytest.mark.slow),
        pytest.param('UNSEE - --out "$2" < "$1"', marks=pytest.mark.slow),  # packed: by its content
        'mkfifo "$3.txt.gz"; cat "$1" > "$3.txt.gz" & UNSEE "$3.txt.gz" --out "$2"',
    ],
    ids=["substitution", "pipe", "packed", "fifo"],
)
def test_what_can_be_read_once_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (tmp_path / "t.gz").write_bytes(gzip.compress(TEXT.encode()))
    done = shell(command, tmp_path / "t.gz", tmp_path / "out", tmp_path / "fifo")
    assert done.returncode == 0, done.stderr
    assert unsee(capsys, tmp_path / "t.gz", "--out", tmp_path / "file")[0] == 0
    assert Shards(tmp_path / "out").fingerprint == Shards(tmp_path / "file").fingerprint


def test_a_mistake_in_standard_input_is_said_in_the_users_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the name of its copy, which is gone."""
    for data, says in (
        (b"a line of text\ncaf\xe9\n", "in line 2"),
        (TEXT.encode("utf-16"), "`iconv -f UTF-16 -t UTF-8 FILE > NEW.txt`"),
    ):
        (tmp_path / "in").write_bytes(data)
        with (tmp_path / "in").open("rb") as piped:
            monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=piped))
            code, _, errors = unsee(capsys, "-", "--out", tmp_path / "out")
        assert code == 2
        assert "standard input is " in errors
        assert says in errors
        assert "preparing" not in errors
        assert not (tmp_path / "out").exists()


def test_a_field_of_text_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.txt").write_text(TEXT)
    code, _, errors = unsee(capsys, tmp_path / "t.txt", "--out", tmp_path / "out", "--field", "body")
    assert code == 2
    assert "--field = body is for .jsonl" in errors


@pytest.mark.slow
def test_rows_of_json_in_a_pipe_are_no_sentences(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text('{"body": "A row of JSON has words."}\n' * 2)
    done = shell('UNSEE <(cat "$1") --out "$2" --field body', tmp_path / "t.txt", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert Shards(tmp_path / "out").head(9) == ["A row of JSON has words."]


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (["-", "-"], "- is given twice, and can be read only once"),
        (["/dev/zero"], "/dev/zero is a device or a socket, not a file"),
        ([os.devnull], "is a device or a socket, not a file"),
    ],
)
def test_what_cannot_be_read_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], inputs: list[str], says: str
) -> None:
    code, _, errors = unsee(capsys, *inputs, "--out", tmp_path / "out")
    assert (code, errors.count("\n")) == (2, 1)
    assert says in errors
    assert not (tmp_path / "out").exists()
