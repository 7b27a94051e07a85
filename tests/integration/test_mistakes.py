"""Wrong inputs of every command: a sentence that says what is wrong and what to write, the right exit code, and nothing lost.

One table, in one process: starting `unsee` takes most of a second. Paths that no file can have are in test_paths.py, ranks in
test_bad_input.py, a shell's completion in test_cli.py, a second start of a run in test_second_start.py.
"""

from __future__ import annotations

import shlex
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from unsee_dist import cli
from unsee_dist.errors import ExitCode

LONG = "x" * 300  # no file system takes such a name
GOOD = "prepare good.txt --out out"
# A command (with the two words above), and what its sentence says: what is wrong, and what to write instead.
TABLE = [
    ("trian", "did you mean train? What it takes: unsee --help"),
    ("--foo", "unsee has no option --foo"),
    ("prepare", "needs INPUT. Write unsee prepare INPUT... --out DIR"),
    ("prepare good.txt", "needs --out DIR"),
    ("prepare none.txt --out out", "none.txt does not exist. Give UTF-8 text"),
    ("prepare empty.txt --out out", "empty.txt is empty"),
    ("prepare folder --out out", "folder is a folder without a file to read"),
    ("prepare *.none --out out", "*.none matches no file"),
    ("prepare bytes.txt --out out", "it has a NUL byte in line 1", "--on-bad-record skip"),
    (
        "prepare numbers.jsonl --out out",
        "numbers.jsonl line 1: field 'text' must hold a string",
        "Correct it",
    ),
    ("prepare wide.csv --out out", "wide.csv line 2 has 3 columns, its header 2", "quote the cell"),
    ("prepare {a,b.tar --out out", "{a,b.tar does not exist"),
    ("prepare nosuch://x/y.txt --out out", "nosuch://x/y.txt cannot be read", "Protocol not known"),
    ("prepare good.txt/in.txt --out out", "good.txt/in.txt does not exist"),
    ("prepare half.tar --out out", "half.tar is damaged at its start", "Copy it again"),
    ("prepare LONG --out out", "File name too long", "Give another path"),
    ("prepare good.txt --out good.txt", "--out good.txt is a file. Give a folder"),
    ("prepare good.txt --out good.txt/x", "--out good.txt/x cannot be written"),
    ("prepare good.txt --out other", "other is not empty", "Choose another --out"),
    ("prepare good.txt --out LONG", "File name too long"),
    ("prepare good.txt --out new/LONG", "--out new/LONG cannot be written", "Write another one"),
    ("GOOD --out two", "--out is given twice: out and two"),
    ("GOOD --split word", "--split = word must be line or sentence"),
    ("GOOD --language de", "--language = de needs --split sentence"),
    ("GOOD --shard-sentences 7", "--shard-sentences = 7 must be a multiple of 1024"),
    ("GOOD --processes 0", "--processes = 0 is less than one"),
    ("GOOD --engine dask", "--engine = dask is unknown. Use local or ray"),
    ("GOOD --engine ray --processes 2", "--processes = 2 is for the engine local"),
    ("GOOD --min-words 90", "no sentence is left of 50 read", "Write a smaller --min-words"),
    ("GOOD --min-words abc", "--min-words = abc must be a whole number"),
    ("GOOD --min-words 9 --max-words 3", "--max-words = 3 is less than --min-words = 9"),
    ("GOOD --min-letters 2", "must be at most 1"),
    ("GOOD --seed -1", "--seed = -1 must be at least 0"),
    ("GOOD --dev 500", "the inputs give 0 held-out pairs. Write --dev 0, or give more text"),
    ("GOOD --keep-language xx", "--keep-language = xx is not a language"),
    ("GOOD --on-bad-record keep", "--on-bad-record = keep must be stop or skip"),
    ("GOOD --field body", "--field = body is for .jsonl", "Leave it out"),
    ("GOOD --tokenizer ./nowhere", "--tokenizer = ./nowhere is not a folder"),
    ("GOOD --max-tokens 64", "--max-tokens = 64 needs --tokenizer"),
    ("GOOD --ot b", "has no option --ot: did you mean --out"),
    ("shards info", "needs DIR. Write unsee shards info DIR"),
    ("shards info nowhere", "DIR = nowhere does not exist", "unsee prepare INPUT --out nowhere"),
    ("shards info folder", "folder has no index.json", "unsee prepare INPUT --out folder"),
    ("shards info good.txt", "good.txt is a file. Give the folder of a corpus"),
    ("shards info LONG", "does not exist"),
    ("shards head folder -n 0", "-n = 0 must be at least 1"),
    ("shards head folder", "folder has no index.json"),
    ("shards verify good.txt", "DIR = good.txt is a file"),
    ("shards heads folder", "did you mean head?"),
    ("config show", "unsee config ls lists presets"),
    ("config show cut.yaml", "cut.yaml:2", "is not YAML"),
    ("config show list.yaml", "has no keys", "write `section:` and its keys"),
    ("config show loop.yaml", "the files extend each other"),
    ("config show folder", "is a folder; name a .yaml file in it"),
    ("config show LONG", "cannot be looked at (File name too long)", "write the path of a file"),
    ("config show base train.lr", "is not a setting", "write section.key=value"),
    ("config show base unsee-vicreg", "unsee-vicreg", "is a second configuration", "write one"),
    ("config check base --config mine.yaml", "is a second configuration"),
    ("config show base train.lr=-1", "train.lr = -1", "must be greater than 0"),
    ("config show base objective.name=vicregg", "did you mean vicreg?"),
    ("config show base --batch-size 8", "Write unsee config show base train.batch=8"),
    ("config check base train.btach=3", "did you mean train.batch?"),
    (
        "config check base train.batch=9 --ranks 8",
        "train.batch = 9 cannot be split over 8 ranks. Use 8 or 16",
    ),
    ("config check base --ranks 0", "--ranks = 0 must be at least 1"),
    ("config check base data.shards=nowhere", "data.shards = nowhere does not exist"),
    (
        "config check base data.mix=3\\ nowhere,\\ 1\\ folder",
        "a folder of data.mix = nowhere does not exist",
    ),
    ("config check base data.mix=3", "data.mix = 3 cannot be read as a mix", "Write whole shares"),
    ("config check base model.encoder=./nowhere", "model.encoder = ./nowhere is not a folder"),
    ("config check base run.dir=good.txt/x", "run.dir = good.txt/x cannot be written", "Write another one"),
    (
        "config check base run.dir=/proc/x",
        "run.dir = /proc/x cannot be written (No such file or directory)",
        "Write another one",
    ),
    ("prepare good.txt --out s3://me:secret@bucket/a", "--out s3://***@bucket/a is a URL"),
    ("init s3://bucket/a", "DIR s3://bucket/a is a URL"),
    ("prepare good.txt --out file:///tmp/a", "--out file:///tmp/a is a URL"),
    ("report run second --out s3://bucket/a", "--out s3://bucket/a is a URL"),
    ("bench base --only order --out s3://bucket/a", "--out s3://bucket/a is a URL", "Write one"),
    (
        "bench base --only order --peer-unsee s3://bucket/a",
        "--peer-unsee s3://bucket/a is a URL",
        "its folder",
    ),
    ("runs s3://bucket/a", "DIR = s3://bucket/a is a URL", "give the folder that your runs are in"),
    (
        "evaluate tfidf --tasks s3://me:secret@bucket/a",
        "--tasks s3://***@bucket/a is a URL",
        "give its folder",
    ),
    ("evaluate tfidf --tasks remote", "remote/tasks.yaml, a: file = s3://bucket/a.tsv is a URL", "its path"),
    *(
        (f"sweep --{flag} s3://bucket/a", "s3://bucket/a is a URL", "give the sweep's folder")
        for flag in ("status", "stop", "resume")
    ),
    ("config check base resume=s3://bucket/a", "resume = s3://bucket/a is a URL", "write its folder"),
    ("config check base evaluate.sts=s3://b/a.tsv", "evaluate.sts = s3://b/a.tsv is a URL", "give its path"),
    ("config check base evaluate.retrieval=s3://b/a.tsv", "evaluate.retrieval = s3://b/a.tsv is a URL"),
    ("config check base data.shards=", "data.shards = null", "leave it out for its default, data/wiki1m"),
    ("config check base run.dir=s3://bucket/run", "is a URL, and a run needs a folder"),
    ("config check base resume=nowhere", "resume = nowhere is neither a checkpoint nor a run's folder"),
    ("config check base evaluate.sts=one.tsv", "has no column sentence1", "Rename one"),
    ("config check base evaluate.retrieval=one.tsv", "fewer than two different answers"),
    ("config check base evaluate.patience=3", "waits for a better score, and there is none"),
    ("config check base train.micro_batch=64", "is larger than train.batch = 32", "write at most 32"),
    (
        "config check base data.shards=https://me:secret@host/x",
        "https://***@host/x",
        "has a password or a token",
    ),
    ("config ls base", "unsee config ls does not take base"),
    ("train", "unsee train needs CONFIG. Write unsee train CONFIG"),
    ("train nowhere", "there is no such file or preset; presets are base"),
    ("train base a.b=1", "there is no such key", "sections are seed"),
    ("train base --lr 1e-4", "Write unsee train base train.lr=1e-4"),
    ("train base --ranks 8", "--ranks 8 needs --dry-run"),
    ("train base --json", "--json needs --dry-run"),
    ("train base --dry-run data.shards=nowhere", "data.shards = nowhere does not exist"),
    ("train base train.steps=0", "train.steps = 0", "must be at least 1"),
    ("checkpoint ls nowhere", "RUN = nowhere does not exist. Give a run's folder"),
    ("checkpoint ls good.txt", "RUN = good.txt is a file"),
    ("checkpoint verify folder", "folder is not a run's folder", "Give the run.dir of a training"),
    ("checkpoint rm run", "needs NAMES"),
    ("checkpoint rm run step-00000001", "run has no checkpoint step-00000001"),
    ("checkpoint rm run ../other", "run has no checkpoint ../other"),
    ("runs nowhere", "nowhere is not a folder", "unsee runs DIR"),
    ("runs good.txt", "good.txt is not a folder"),
    ("runs folder second", "unsee runs does not take second"),
    ("report", "needs RUN"),
    ("report nowhere", "RUN = nowhere does not exist"),
    ("report folder", "folder is not a run's folder"),
    ("report good.txt", "RUN = good.txt is a file"),
    ("report run run", "run is given twice"),
    ("report run second --out folder", "folder cannot be written"),
    (
        "report run second --out good.txt",
        "good.txt is not a page that unsee report wrote. Nothing was changed",
    ),
    ("report search run", "search is a sweep", "Give it alone"),
    ("report search --out page.html", "--out page.html is not used with a sweep", "Leave it out"),
    ("evaluate", "needs MODEL"),
    ("evaluate tfidf", "There is no task to evaluate on. Write --tier"),
    ("evaluate tfidf --tier sst", "--tier sst is neither a tier", "Did you mean sts?"),
    ("evaluate tfidf --tasks nowhere", "--tasks nowhere is not a folder"),
    ("evaluate tfidf --tasks good.txt", "--tasks good.txt is not a folder"),
    ("evaluate tfidf --tasks tasks", "tasks/a.tsv has the columns foo, bar"),
    ("evaluate tfidf --tasks folder", "--tasks folder holds no task"),
    ("evaluate tfidf --tasks LONG", "File name too long"),
    ("evaluate folder --tasks sound", "folder is not a model", "Give a run"),
    ("evaluate half --tasks sound", "half is a half-written export", "Export it again"),
    ("evaluate LONG --tasks sound", "File name too long"),
    ("evaluate tfidf --tasks sound --shard 9/2", "--shard 9/2 is not a part. Write k/n"),
    ("evaluate tfidf --tasks sound --engine dask", "--engine dask is unknown. Write --engine ray"),
    ("evaluate tfidf --prefetch --tasks sound", "--tasks is not used. Leave it out"),
    ("compare", "needs MODEL"),
    ("compare tfidf", "One model cannot be compared. Write two or more"),
    ("compare tfidf run", "tfidf has no scores yet. First: unsee evaluate tfidf"),
    ("compare LONG run", "File name too long"),
    (
        "compare nowhere run",
        "nowhere is neither a folder here nor a model",
        "unsee evaluate nowhere --prefetch",
    ),
    ("export run", "needs --out DIR. Write unsee export RUN --out DIR"),
    ("export nowhere --out out", "nowhere is not a folder. Give a run"),
    ("export folder --out out", "folder is not a model"),
    ("export run --out out", "run is a run without best/ and final/", "train it first"),
    ("export half --out out", "half is a half-written export", "Export it again"),
    ("export run --out good.txt", "--out good.txt holds something that is not an export. Give a new folder"),
    ("export run --out other", "--out other holds something that is not an export. Give a new folder"),
    ("export run --out LONG", "File name too long"),
    ("reproduce", "needs NAME"),
    ("reproduce objectives", "needs --out DIR"),
    ("reproduce objectves --out new", "not an experiment: did you mean objectives?"),
    ("reproduce objectives --out new --seeds 0", "--seeds = 0 must be at least 1"),
    ("reproduce objectives --out new --engine dask", "--engine dask is unknown. Write --engine ray"),
    ("reproduce objectives --out new", "nothing evaluates the runs", "unsee prepare --dev 1000"),
    ("reproduce vision --out new train.lr=1", "train.lr=1 is not used by vision"),
    ("reproduce vision --out new --engine ray", "--engine ray is not used by vision"),
    ("reproduce start --out new --start mini", "--start mini is not NAME=FOLDER"),
    ("reproduce target --out new --start a=b evaluate.sts=x.tsv", "--start is of start", "Leave it out"),
    ("sweep", "nothing given: write one of SWEEP"),
    ("sweep nowhere", "there is no such file, and no sweep of this name; sweeps are ablation"),
    ("sweep tniy", "did you mean tiny?"),
    ("sweep cut.yaml", "is not YAML"),
    ("sweep LONG", "File name too long", "Give another path"),
    ("sweep tiny sweep.trails=3", "did you mean sweep.trials?"),
    ("sweep tiny evaluate.sts=", "never appears: evaluate.sts is absent"),
    ("sweep tiny --resume search", "SWEEP and --resume given"),
    ("sweep --status folder", "folder holds no sweep", "Start one: unsee sweep SWEEP.yaml"),
    ("sweep --stop folder", "folder holds no sweep", "Start one: unsee sweep SWEEP.yaml"),
    ("sweep --resume folder", "folder holds no sweep", "Start one: unsee sweep SWEEP.yaml"),
    ("sweep --status folder --confirm 3", "--confirm 3 is not used with --status"),
    ("sweep tiny --json", "--json needs --status DIR"),
    ("sweep --confirm -1", "--confirm = -1 must be at least 0"),
    ("sweep tiny --seed 8", "Write unsee sweep tiny seed=8"),
    ("init", "needs DIR"),
    ("init good.txt", "DIR = good.txt is a file. Give a folder"),
    ("init good.txt/x", "DIR = good.txt/x cannot be written", "Give another folder"),
    ("init new/LONG", "File name too long", "Give another folder"),
    (
        "init mine",
        "mine has files of these names with other contents: configs/base.yaml",
        "Nothing was written",
    ),
    ("init LONG", "File name too long"),
    ("doctor nowhere", "DIR = nowhere does not exist. Give where runs will be written"),
    ("doctor good.txt", "DIR = good.txt is a file"),
    ("bench --only nothing", "--only nothing is unknown. Write one of"),
    (
        "bench base --only order --out folder",
        "--out folder cannot be written (Is a directory)",
        "Write another",
    ),
    ("bench base --only order --out /proc/x", "--out /proc/x cannot be written"),
    ("bench nowhere --only order", "there is no such file or preset"),
    ("bench base train.btach=3 --only order", "did you mean train.batch?"),
    ("quickstart 3", "unsee quickstart does not take 3"),
    ("quickstart --steps 3", "unsee quickstart has no option --steps"),
]

# With something wrong of every kind, and a little that is right.
TEXTS = {
    "good.txt": "\n".join(f"one small sentence number {number} of five" for number in range(50)),
    "empty.txt": "",
    "numbers.jsonl": '{"text": 3}\n',
    "wide.csv": "text,b\n1,2,3\n",
    "cut.yaml": "train: [1\n",
    "list.yaml": "- 1\n",
    "loop.yaml": "extends: loop.yaml\n",
    "one.tsv": "query\tanswer\na\tb\n",
    "half/config.json": "{",
    "other/file": "",
    "mine/configs/base.yaml": "# mine\n",
    "search/sweep.yaml": "space: {}\n",
    "remote/tasks.yaml": "a: {kind: sts, file: s3://bucket/a.tsv}\n",
    "tasks/a.tsv": "foo\tbar\n1\t2\n",
    "sound/a.tsv": "sentence1\tsentence2\tscore\na\tb\t1\nc\td\t2\n",
    **{f"{run}/config.yaml": f"run: {{name: {run}}}\n" for run in ("run", "second")},
    **{f"{run}/metrics.jsonl": '{"step": 1, "time": 1.0, "loss": 2.0}\n' for run in ("run", "second")},
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("mistakes")
    (here / "folder").mkdir()
    for name, text in TEXTS.items():
        (here / name).parent.mkdir(exist_ok=True, parents=True)
        (here / name).write_text(text, encoding="utf-8")
    (here / "bytes.txt").write_bytes(bytes(range(256)))
    (here / "half.tar").write_bytes(b"a.txt".ljust(512, b"\0"))
    return here


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below a folder: its rights, and what is in it."""
    return {
        str(path): (stat.S_IMODE(path.lstat().st_mode), path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def leaves(command: Any, path: str = "") -> Iterator[str]:
    for name, each in command.commands.items():
        if hasattr(each, "commands"):
            yield from leaves(each, f"{path}{name} ")
        else:
            yield f"{path}{name}"


def test_there_are_sixty_of_them_and_each_command_has_one() -> None:
    written = [command.replace("GOOD", GOOD) for command, *_ in TABLE]
    assert len(set(written)) == len(TABLE) >= 60
    left_out = [
        leaf
        for leaf in leaves(get_command(cli.app))
        if not any(f"{each} ".startswith(f"{leaf} ") for each in written)
    ]
    assert not left_out


@pytest.mark.parametrize(
    ("command", "words"), [(row[0], row[1:]) for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_a_mistake_is_a_sentence(
    command: str,
    words: tuple[str, ...],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(here)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    given = [word.replace("LONG", LONG) for word in shlex.split(command.replace("GOOD", GOOD))]
    monkeypatch.setattr(sys, "argv", ["unsee", *given])
    before = contents(here)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    message = " ".join(printed.err.split()).replace(LONG, "LONG")
    assert ended.value.code == ExitCode.MISTAKE, message
    assert printed.out == ""
    assert "Traceback" not in message
    assert words
    for each in words:
        assert each in message
    assert contents(here) == before
