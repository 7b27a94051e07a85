"""Which error becomes which exit code, and what is printed."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from unsee_dist import errors
from unsee_dist.distributed.shared_errors import SharedTransientError, SharedUserError, share_errors
from unsee_dist.distributed.world import World
from unsee_dist.errors import (
    ExitCode,
    TransientError,
    UserError,
    exit_code_of,
    file_error,
    foreseen,
    refusals,
    report,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("write this instead"), ExitCode.MISTAKE),
        (ModuleNotFoundError("No module named 'ray'", name="ray.tune"), ExitCode.MISTAKE),
        (ModuleNotFoundError("No module named 'unsee_dist.x'", name="unsee_dist.x"), ExitCode.BUG),
        (ValueError("nobody foresaw this"), ExitCode.BUG),
        (KeyError("key"), ExitCode.BUG),
        (FileNotFoundError(errno.ENOENT, "no such file"), ExitCode.BUG),
        (OSError(errno.ENOSPC, "full"), ExitCode.MISTAKE),
        (PermissionError(errno.EACCES, "denied", "x"), ExitCode.MISTAKE),
        (OSError(errno.ENAMETOOLONG, "too long", "x"), ExitCode.MISTAKE),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]), ExitCode.MISTAKE),
        (shutil.Error([("a", "b", "[Errno 2] No such file or directory: 'b'")]), ExitCode.BUG),
        (NotADirectoryError(errno.ENOTDIR, "no folder"), ExitCode.BUG),
        (OSError(errno.EIO, "input/output"), ExitCode.TRANSIENT),
        (OSError(errno.ESTALE, "stale handle"), ExitCode.TRANSIENT),
        (TimeoutError("slow"), ExitCode.TRANSIENT),
        (socket.gaierror(socket.EAI_AGAIN, "no name server answers"), ExitCode.TRANSIENT),
        (OfflineModeIsEnabled("offline"), ExitCode.BUG),  # who calls the Hub says it
        (ChildProcessError("a process was killed, perhaps for its memory"), ExitCode.MISTAKE),
        (ChildProcessError(errno.ECHILD, "no child"), ExitCode.BUG),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed. "), ExitCode.MISTAKE),
        (RuntimeError("DataLoader worker (pid(s) 3) exited unexpectedly"), ExitCode.BUG),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Segmentation fault. "), ExitCode.BUG),
        (ConnectionResetError(errno.ECONNRESET, "reset"), ExitCode.TRANSIENT),
        (TransientError("a store did not answer"), ExitCode.TRANSIENT),
    ],
)
def test_every_kind_has_its_code_and_its_words(
    error: Exception, code: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(error) is code
    assert report(error, "unsee") is code
    printed = capsys.readouterr().err
    assert ("Traceback" in printed or "NoneType" in printed or type(error).__name__ in printed) is (
        code is ExitCode.BUG
    )
    assert (errors.REPORT_TO in printed) is (code is ExitCode.BUG)
    assert ("the same command continues" in printed) is (code is ExitCode.TRANSIENT)


def test_too_many_open_files_are_mended_by_allowing_more() -> None:
    assert "ulimit -n" in str(errors.foreseen(OSError(errno.EMFILE, "Too many open files", "x")))


def test_a_thread_that_must_not_die_ends_its_process() -> None:
    program = """
import threading, time
from unsee_dist.errors import ends_process
@ends_process
def work(error): raise error
threading.Thread(target=work, args=({error},), name="owner").start()
time.sleep(30)
"""
    for error, code in (("KeyError('x')", ExitCode.BUG), ("TimeoutError('slow')", ExitCode.TRANSIENT)):
        command = [sys.executable, "-c", program.format(error=error)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        assert "thread owner" in done.stderr


def test_a_file_error_keeps_what_passes() -> None:
    assert isinstance(file_error("sentence", OSError(errno.EACCES, "denied")), UserError)
    assert isinstance(file_error("sentence", OSError(errno.EIO, "io")), TransientError)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "full"), UserError),
        (PermissionError(errno.EACCES, "denied"), UserError),
        (OSError(errno.EMFILE, "too many"), UserError),
        (RuntimeError("I/O error: full (os error 28)"), UserError),
        (OSError(errno.EIO, "io"), TransientError),
        (RuntimeError("I/O error: io (os error 5)"), TransientError),
        (FileNotFoundError(errno.ENOENT, "not there"), FileNotFoundError),
        (IsADirectoryError(errno.EISDIR, "a folder"), IsADirectoryError),
        (RuntimeError("not there (os error 2)"), RuntimeError),
        (KeyError("planted"), KeyError),
    ],
)
def test_only_what_can_be_mended_or_passes_becomes_a_sentence(
    error: Exception, kind: type[Exception]
) -> None:
    with pytest.raises(kind) as met, refusals(lambda refused: f"no: {refused.errno}"):
        raise error
    assert type(met.value) is kind
    assert (met.value is error) is (kind is type(error))


def test_together_alone_keeps_the_kinds_apart() -> None:
    for raised, kind in (
        (UserError("a"), SharedUserError),
        (OSError(errno.EIO, "b"), SharedTransientError),
        (KeyError("c"), KeyError),
    ):
        with pytest.raises(kind), share_errors(World.alone()):
            raise raised


def test_a_library_in_rust_says_the_number_in_its_words() -> None:
    found = errors.system_error(
        RuntimeError("Error while serializing: I/O error: Stale file handle (os error 116)")
    )
    assert found is not None
    assert exit_code_of(found) is ExitCode.TRANSIENT
    assert errors.system_error(RuntimeError("header too large")) is None


def test_a_missing_extra_names_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    report(ModuleNotFoundError("No module named 'mteb'", name="mteb"), "unsee")
    assert capsys.readouterr().err == 'unsee: mteb is not installed. Write: pip install "unsee_dist[mteb]"\n'


def test_every_package_of_an_extra_is_in_pyproject() -> None:
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for package, extra in errors.EXTRA_OF.items():
        assert any(line.replace("-", "_").startswith(package) for line in extras[extra]), (package, extra)


def test_together_shows_the_sentence_that_alone_would_be_shown() -> None:
    with (
        pytest.raises(SharedUserError, match=r'pip install "unsee_dist\[mteb\]"'),
        share_errors(World.alone()),
    ):
        raise ModuleNotFoundError("No module named 'mteb'", name="mteb")
    with (
        pytest.raises(SharedUserError, match=r"x cannot be used \(No space left on device\). Make room"),
        share_errors(World.alone()),
    ):
        raise OSError(errno.ENOSPC, "No space left on device", "x")


@pytest.mark.parametrize("below", ["", "inner/deeper"])
def test_torchs_cache_that_cannot_be_made_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    """torch makes it when transformers is imported, so in every command, with or without parallel.compile."""
    (tmp_path / "file").write_text("")
    cache = tmp_path / "file" / below
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    with pytest.raises(OSError) as raised:  # noqa: PT011  (which one depends on the system)
        os.makedirs(cache, exist_ok=True)
    sentence = str(foreseen(raised.value))
    assert f"TORCHINDUCTOR_CACHE_DIR = {cache} cannot be written (there is a file)" in sentence
    assert exit_code_of(raised.value) is ExitCode.MISTAKE
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    assert foreseen(raised.value) is None, "a file that nobody foresaw may be a bug"
