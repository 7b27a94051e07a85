"""The command line: exit codes, one sentence for a mistake, and no torch before it is needed."""

import errno
import inspect
import json
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from unsee_dist import cli
from unsee_dist.cli import check
from unsee_dist.config import load, presets
from unsee_dist.errors import REPORT_TO, ExitCode, TransientError, UserError

HEAVY = ("torch", "deepspeed", "transformers", "mlflow", "numpy", "pyarrow")


def unsee(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of one command in this process."""
    monkeypatch.setattr(sys, "argv", ["unsee", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.mark.parametrize("arguments", [["--help"], ["config", "show", "simcse"], ["config", "ls"]])
def test_nothing_heavy_is_imported_before_it_is_needed(arguments: list[str]) -> None:
    script = (
        "import sys, unsee_dist.cli as cli\n"
        f"sys.argv = ['unsee', *{arguments}]\n"
        "try: cli.main()\n"
        "except SystemExit as ended: assert not ended.code\n"
        f"print('HEAVY', sorted(set({HEAVY}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []", done.stdout + done.stderr


def test_show_prints_what_loads_equal(monkeypatch, capsys, tmp_path: Path) -> None:
    code, out, _ = unsee(monkeypatch, capsys, "config", "show", "simcse", "train.lr=1e-7", "run.name=x")
    (tmp_path / "shown.yaml").write_text(out)
    assert code == 0
    assert load(str(tmp_path / "shown.yaml")) == load("simcse", ["train.lr=1e-7", "run.name=x"])


def test_check_accepts_and_refuses(monkeypatch, capsys) -> None:
    assert unsee(monkeypatch, capsys, "config", "check", "base")[0] == 0
    code, out, err = unsee(monkeypatch, capsys, "config", "check", "base", "train.btach=3", "train.lr=x")
    assert (code, out) == (2, "")
    assert "base: 2 mistakes" in err
    assert "did you mean train.batch?" in err
    assert "Traceback" not in err


def test_check_says_what_it_did_not_look_at(monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ("data.shards=s3://bucket/corpus", "model.encoder=owner/name", "evaluate.sts=mteb/sts:test")
    code, out, _ = unsee(monkeypatch, capsys, "config", "check", "unsee-vicreg", *settings)
    assert code == 0
    assert "run.dir = runs/unsee-vicreg: can be made" in out
    for left in (
        "s3://bucket/corpus: a store",
        "owner/name: a name on the Hub",
        "mteb/sts:test: names on the Hub",
        "ranks",
    ):
        assert f"{left}" in out.partition("not checked:")[2]
    assert list(tmp_path.iterdir()) == []
    code, out, _ = unsee(monkeypatch, capsys, "config", "check", "base")
    assert "not checked: data.shards = data/wiki1m: the presets' own, which is not here" in out
    assert code == 0


def test_check_looks_at_every_path(monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "a.tsv").write_text("sentence1\tsentence2\tscore\nx\ty\t1\n")
    wrong = {
        "run.dir=file/x": "run.dir = file/x cannot be written",
        "resume=nowhere": "resume = nowhere is neither a checkpoint nor a run's folder",
        "data.shards=nowhere": "data.shards = nowhere does not exist",
        "model.encoder=./nowhere": "model.encoder = ./nowhere is not a folder",
        "evaluate.sts=a.tsv": "evaluate.sts = a.tsv: the 1 scores",
        "evaluate.retrieval=b.tsv": "evaluate.retrieval = b.tsv is not a file",
    }
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "localhost:5000")
    code, out, err = unsee(monkeypatch, capsys, "config", "check", "base", *wrong)
    assert (code, out) == (2, "")
    for sentence in (*wrong.values(), "MLFLOW_TRACKING_URI = localhost:5000 is not an address"):
        assert sentence in err
    assert len(err.splitlines()) == len(wrong) + 1
    assert len(list(tmp_path.iterdir())) == 2


def test_check_looks_up_what_no_name_on_the_hub_can_be(monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = {
        "model.encoder=my model": "model.encoder = my model is neither a folder here",
        "evaluate.sts=my set": "evaluate.sts = my set is neither a file here",
    }
    code, out, err = unsee(monkeypatch, capsys, "config", "check", "base", *wrong)
    assert (code, out) == (2, "")
    for sentence in wrong.values():
        assert sentence in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "byol", "--lr", "1e-4"], "Write unsee train byol train.lr=1e-4"),
        (["train", "--train.lr=1e-4", "byol"], "Write unsee train byol train.lr=1e-4"),
        (["train", "--config"], "has no option --config. Write unsee train VALUE."),
        (["sweep", "--config", "tiny"], "has no option --config. Write unsee sweep tiny."),
        (["config", "show", "byol", "--batch-size", "8"], "Write unsee config show byol train.batch=8"),
        (["sweep", "tiny", "--seed", "8"], "Write unsee sweep tiny seed=8"),
        (["train", "byol", "--qwerty"], "settings are written SECTION.KEY=VALUE, such as train.lr=1e-4."),
        (["sweep", "tniy"], "did you mean tiny?"),
        (["sweep", "--status", ".", "--confirm", "3"], "--confirm 3 is not used with --status"),
        (["evaluate", "x", "--prefetch", "--tasks", "d", "--json"], "--tasks, --json is not used"),
    ],
)
def test_what_was_meant_is_written_out(monkeypatch, capsys, arguments: list[str], words: str) -> None:
    code, out, err = unsee(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in err


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("train", "unsee train needs CONFIG. Write unsee train CONFIG; unsee config ls lists presets."),
        (
            "compare",
            "unsee compare needs MODEL. Write unsee compare MODEL...; unsee compare --help says more.",
        ),
        ("export runs/a", "unsee export needs --out DIR. Write unsee export RUN --out DIR;"),
        ("checkpoint ls nowhere", "RUN = nowhere does not exist. Give a run's folder."),
        (
            "report nowhere",
            "RUN = nowhere does not exist. Give a run, several to compare, or a sweep's folder.",
        ),
        ("report http://me:pw@h/x", "RUN = http://***@h/x does not exist."),
        ("report file", "RUN = file is a file."),
        ("runs nowhere", "nowhere is not a folder. Give the one that your runs are in: unsee runs DIR."),
        ("prepare a --out b --min-words abc", "--min-words = abc must be a whole number."),
        ("prepare a --out b --min-letters abc", "--min-letters = abc must be a number."),
        ("prepare a --ot b", "unsee prepare has no option --ot: did you mean --out"),
        ("prepare a --out", "--out needs a value after it. What it takes: unsee prepare --help"),
        ("prepare a --out b --zst=3", "--zst takes no value."),
        ("shards head a -n 0", "-n = 0 must be at least 1."),
        ("sweep --confirm -1", "--confirm = -1 must be at least 0."),
        ("doctor nowhere", "DIR = nowhere does not exist. Give where runs will be written."),
        ("trian", "unsee has no command trian: did you mean train?"),
        ("checkpoint sl", "unsee checkpoint has no command sl."),
        ("--foo", "unsee has no option --foo."),
    ],
)
def test_a_wrong_call_gets_one_sentence(
    monkeypatch, capsys, tmp_path: Path, call: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code, out, err = unsee(monkeypatch, capsys, *call.split())
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"unsee: {sentence}")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["prepare", "x", "--out", "a", "--out=b"], "--out is given twice: a and b. Write one of them."),
        (["shards", "head", "x", "-n", "3", "-n", "4"], "-n is given twice: 3 and 4"),
        (
            ["prepare", "x", "--out", "a", "--max-tokens", "64"],
            "--max-tokens = 64 needs --tokenizer: write that, too.",
        ),
    ],
)
def test_a_value_that_would_not_be_used_is_a_mistake(monkeypatch, capsys, arguments, sentence) -> None:
    code, out, err = unsee(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert sentence in err


def test_an_option_twice_with_one_value_or_of_several_values_is_none(
    monkeypatch, capsys, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["prepare", "none.txt", "--out", "a", "--out", "a"],
        ["evaluate", "tfidf", "--tasks", "a", "--tasks", "b"],
    ):
        code, _, err = unsee(monkeypatch, capsys, *arguments)
        assert code == 2
        assert "given twice" not in err


@pytest.mark.parametrize("option", ["--show-completion", "--install-completion"])
@pytest.mark.parametrize(("shell", "seen"), [(None, "no shell was seen"), ("csh", "csh is none of them")])
def test_completion_for_no_shell_is_a_mistake(
    monkeypatch, capsys, option: str, shell: str | None, seen: str
) -> None:
    monkeypatch.setattr("typer._completion_shared._get_shell_name", lambda: shell)
    code, out, err = unsee(monkeypatch, capsys, option)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert f"{option} is for bash, zsh, fish, powershell, pwsh, and {seen}" in err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--min-words 9 --max-words 3", "--max-words = 3 is less than --min-words = 9: write at least 9."),
        ("--min-words 9 --max-bytes 3", "--max-bytes = 3 is less than --min-words = 9 words can have"),
        ("--language de", "--language = de needs --split sentence"),
        ("--shard-sentences 3", "--shard-sentences = 3 must be a multiple of 1024"),
        ("--processes -1", "--processes = -1 is less than one."),
        ("--engine spark", "--engine = spark is unknown."),
        ("--engine ray --processes 2", "--processes = 2 is for the engine local"),
        ("--tokenizer ./nowhere", "--tokenizer = ./nowhere is not a folder."),
    ],
)
def test_a_mistake_names_the_flag(monkeypatch, capsys, tmp_path: Path, flags: str, sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("Four words of text\n")
    code, out, err = unsee(monkeypatch, capsys, "prepare", "a.txt", "--out", "b", *flags.split())
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"unsee: {sentence}")


def test_resume_says_that_a_sweeps_folder_is_code(monkeypatch, capsys, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("space: {}\n")
    code, _, err = unsee(monkeypatch, capsys, "sweep", "--resume", tmp_path)
    assert code == 2
    assert (
        f"{tmp_path}: Ray's state in it is pickled, which is code. Continue only a sweep that is your own."
        in err
    )


def test_the_script_of_launchers_says_it_too(capsys) -> None:
    from unsee_dist.train import parse

    with pytest.raises(SystemExit) as ended:
        parse(["--config", "byol", "--lr", "1e-4", "train.steps=3"])
    assert ended.value.code == 2
    assert "--config byol train.lr=1e-4" in capsys.readouterr().err
    assert parse(["--local_rank=3", "--config", "byol", "train.steps=3"]).overrides == ["train.steps=3"]


@pytest.mark.parametrize("command", [("ls",), ("verify",), ("rm", "step-00000001")])
def test_checkpoints_of_what_is_no_run_are_a_mistake(monkeypatch, capsys, tmp_path: Path, command) -> None:
    (tmp_path / "run" / "checkpoints" / "step-00000001").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    verb, *names = command
    code, out, err = unsee(monkeypatch, capsys, "checkpoint", verb, tmp_path / "notes", *names)
    assert (code, out) == (2, "")
    assert f"{tmp_path}/notes is not a run's folder: it has neither config.yaml nor checkpoints/" in err
    for inside in ("run/checkpoints", "run/checkpoints/step-00000001"):
        code, _, err = unsee(monkeypatch, capsys, "checkpoint", verb, tmp_path / inside, *names)
        assert code == 2
        assert f"Give {tmp_path}/run, which is one" in err
    assert (tmp_path / "run" / "checkpoints" / "step-00000001").is_dir()


@pytest.mark.parametrize("command", ["ls", "verify"])
def test_a_run_without_checkpoints_says_so(monkeypatch, capsys, tmp_path: Path, command: str) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    code, out, _ = unsee(monkeypatch, capsys, "checkpoint", command, tmp_path)
    assert (code, out) == (0, f"{tmp_path} has no checkpoint yet\n")


def test_ls_names_every_preset(monkeypatch, capsys) -> None:
    code, out, _ = unsee(monkeypatch, capsys, "config", "ls")
    assert code == 0
    assert all(f" {name} " in out for name in presets())


def test_train_hands_over_the_checked_configuration(monkeypatch, capsys) -> None:
    given: list[list[str]] = []
    script = types.ModuleType("unsee_dist.train")
    script.main = lambda arguments: given.append(arguments) or 75  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unsee_dist.train", script)
    assert unsee(monkeypatch, capsys, "train", "simcse", "train.steps=3")[0] == 75
    assert given == [["--config", "simcse", "train.steps=3"]]
    assert unsee(monkeypatch, capsys, "train", "simcse", "train.steps=0")[0] == 2
    assert len(given) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "simcse", "train.steps=3"],
        ["--config=simcse", "train.steps=3"],
        ["train.steps=3", "--config", "simcse"],
    ],
)
def test_the_configuration_may_be_written_as_for_launchers(monkeypatch, capsys, arguments: list[str]) -> None:
    wanted = unsee(monkeypatch, capsys, "config", "show", "simcse", "train.steps=3")
    assert wanted[0] == 0
    assert unsee(monkeypatch, capsys, "config", "show", *arguments) == wanted
    code, _, err = unsee(monkeypatch, capsys, "config", "show", *arguments, "train.lr=x")
    assert code == 2
    assert "train.lr" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("no."), ExitCode.MISTAKE),
        (OSError(errno.ESTALE, "no handle"), ExitCode.TRANSIENT),
        (ValueError("no."), ExitCode.BUG),
        (PermissionError(13, "no", "x"), ExitCode.MISTAKE),
        (FileNotFoundError(2, "no", "x"), ExitCode.BUG),
        (RuntimeError("no"), ExitCode.BUG),
    ],
)
def test_mistakes_are_sentences_and_bugs_keep_their_traceback(monkeypatch, capsys, error, code) -> None:
    def train(_: list[str]) -> None:
        raise error

    script = types.ModuleType("unsee_dist.train")
    script.main = train  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unsee_dist.train", script)
    found, _, err = unsee(monkeypatch, capsys, "train", "base")
    assert found == code
    assert "no" in err
    assert ("Traceback" in err) == (REPORT_TO in err) == (code is ExitCode.BUG)
    assert (len(err.splitlines()) == 1) == (code is not ExitCode.BUG)


@pytest.mark.parametrize(
    "arguments",
    [["shards", "info", "nowhere"], ["shards", "verify", "nowhere"], ["train", "nowhere"], ["trian"]],
)
def test_bad_input_ends_with_2(monkeypatch, capsys, arguments: list[str]) -> None:
    code, out, err = unsee(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert arguments[-1] in err
    assert "Traceback" not in err


@pytest.mark.parametrize("uri", ["https://me:Pa55-w0rd@127.0.0.1:1/x", "https://me:Pa55-w0rd@127.0.0.1:no/x"])
def test_doctor_shows_no_password(monkeypatch, capsys, tmp_path: Path, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    _, out, err = unsee(monkeypatch, capsys, "doctor", tmp_path)
    assert "https://***@127.0.0.1:" in out
    assert "Pa55" not in out + err
    assert "Traceback" not in err


def test_doctor_says_that_a_cpu_cannot_multiply_bf16(monkeypatch, capsys, tmp_path: Path) -> None:
    from unsee_dist.doctor import machine

    for can in (True, False):
        monkeypatch.setattr(machine, "cpu_computes_bf16", lambda can=can: can)
        _, out, _ = unsee(monkeypatch, capsys, "doctor", tmp_path)
        assert ("Write parallel.precision=fp32" in out) == (not can and "no GPU" in out)


def test_sweep_wants_one_thing_to_do(monkeypatch, capsys, tmp_path: Path) -> None:
    for arguments in ([], ["tiny", "--resume", tmp_path], ["--status", tmp_path, "--stop", tmp_path]):
        code, _, err = unsee(monkeypatch, capsys, "sweep", *arguments)
        assert code == 2
        assert "write one of SWEEP, --resume DIR, --status DIR, --stop DIR" in err
    code, _, err = unsee(monkeypatch, capsys, "sweep", "tiny", "evaluate.sts=")
    assert code == 2
    assert "never appears: evaluate.sts is absent" in err


def test_prepare_then_look_then_damage(monkeypatch, capsys, tmp_path: Path) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "corpus"
    text.write_text("".join(f"sentence number {n} of many\n" for n in range(3000)))
    code, output, _ = unsee(monkeypatch, capsys, "prepare", text, "--out", out, "--max-words", 5)
    assert code == 0
    assert "3,000" in output
    assert "3,000 sentences" in unsee(monkeypatch, capsys, "shards", "info", out)[1]
    assert len(unsee(monkeypatch, capsys, "shards", "head", out, "-n", 3)[1].splitlines()) == 3
    assert unsee(monkeypatch, capsys, "shards", "verify", out)[0] == 0
    (shard,) = out.glob("*.tar")
    damaged = bytearray(shard.read_bytes())
    damaged[600] ^= 1
    damaged[-3000] ^= 1
    shard.write_bytes(damaged)
    code, _, err = unsee(monkeypatch, capsys, "shards", "verify", out)
    assert (code, len(err.splitlines())) == (2, 2)


def test_prepare_has_the_defaults_of_its_settings() -> None:
    from unsee_dist.data.prepare.pipeline import PrepareSettings

    flags = {name: p.default for name, p in inspect.signature(cli.corpus.prepare).parameters.items()}
    settings = PrepareSettings().model_dump()
    assert {name: flags.get(name) for name in settings} == settings


def test_the_end_of_a_file_is_a_bug_and_not_the_end_of_the_keyboards_input(monkeypatch, capsys) -> None:
    """typer prints "Aborted." for every EOFError, and nothing of where it came from."""

    def truncated(*_: object, **__: object) -> None:
        raise EOFError("Ran out of input")

    monkeypatch.setattr("unsee_dist.cli.training.load", truncated)
    code, _, err = unsee(monkeypatch, capsys, "config", "show", "simcse")
    assert code == ExitCode.BUG
    assert "in truncated" in err
    assert "EOFError: Ran out of input" in err
    assert REPORT_TO in err


def test_an_interrupt_is_no_bug(monkeypatch, capsys) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unsee_dist.cli.training.load", interrupted)
    code, _, err = unsee(monkeypatch, capsys, "config", "show", "simcse")
    assert code != 0
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (TransientError("a store did not answer."), ExitCode.TRANSIENT),
        (OSError(errno.EIO, "planted"), ExitCode.TRANSIENT),
        (UserError("planted"), ExitCode.MISTAKE),
        (FileNotFoundError(errno.ENOENT, "planted"), ExitCode.BUG),
    ],
)
def test_a_check_of_a_run_ends_as_the_run_would(monkeypatch, capsys, fault, code) -> None:
    def look(*_: object) -> None:
        raise fault

    monkeypatch.setattr(check, "_corpus", look)
    ended, _, err = unsee(monkeypatch, capsys, "config", "check", "base")
    assert ended == code, err
    assert ("the same command continues" in err) is (code is ExitCode.TRANSIENT)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, ExitCode.MISTAKE),
        (errno.EMFILE, ExitCode.MISTAKE),
        (errno.EIO, ExitCode.TRANSIENT),
        (errno.ENOENT, ExitCode.BUG),
        (errno.EISDIR, ExitCode.BUG),
    ],
)
def test_a_preparation_that_the_system_stops(tmp_path: Path, monkeypatch, capsys, number, code) -> None:
    from unsee_dist.data.prepare import pipeline

    def write(*_: object) -> None:
        raise OSError(number, "planted")

    text = tmp_path / "text.txt"
    text.write_text("A line of five words.\n")
    monkeypatch.setattr(pipeline.Preparation, "write", write)
    ended, _, err = unsee(monkeypatch, capsys, "prepare", text, "--out", tmp_path / "out")
    assert ended == code, err
    assert ("Traceback" in err) is (code is ExitCode.BUG)
    assert (f"{tmp_path}/out cannot be written (planted)" in err) is (code is not ExitCode.BUG)


def test_a_reader_that_has_seen_enough_is_no_bug(monkeypatch, capsys) -> None:
    """`unsee shards head DIR | head -1`."""

    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("unsee_dist.cli.training.presets", closed)
    code, _, err = unsee(monkeypatch, capsys, "config", "ls")
    assert (code, err) == (128 + signal.SIGPIPE, "")


def test_presets_are_listed_by_whole_sentences(monkeypatch, capsys) -> None:
    for arguments in ((), ("--json",)):
        code, out, _ = unsee(monkeypatch, capsys, "config", "ls", *arguments)
        words = " ".join(out.split())
        assert code == 0
        assert "Every setting of a run, explained." in words
        assert "in minutes on 2 CPU ranks." in words, "the sentence goes on in the second line"
    assert all(sentence.endswith(".") for sentence in json.loads(out).values()), out
