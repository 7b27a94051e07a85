"""The mark by which a batch script starts a job again: after a signal, and after a fault that passes, wherever it came."""

from __future__ import annotations

import errno
import sys
from importlib import import_module
from pathlib import Path

import pytest

from unsee_dist.distributed.world import World
from unsee_dist.errors import ExitCode
from unsee_dist.supervision import stop_mark

train = import_module("unsee_dist.train")  # `from unsee_dist import train` is the function of that name

ALONE = World.alone()


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNSEE_STOP_MARK", str(tmp_path / "mark"))
    return tmp_path / "mark"


@pytest.mark.parametrize(
    ("error", "code"),
    [(OSError(errno.ESTALE, "stale"), ExitCode.TRANSIENT), (ValueError("a bug"), ExitCode.BUG)],
)
def test_what_passes_before_the_configuration_is_known_leaves_a_mark(
    mark: Path, error: Exception, code: ExitCode
) -> None:
    assert train.end(error, ALONE, None, None) == code
    assert mark.exists() is (code is ExitCode.TRANSIENT)
    if mark.exists():
        assert mark.read_text() == "step-00000000\n"


def test_a_fault_while_the_ranks_meet_leaves_a_mark(mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(**_: object) -> None:
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    monkeypatch.setattr("unsee_dist.distributed.process_group.join_world", no_network)
    assert train.main(["--config", "quickstart"]) == ExitCode.TRANSIENT
    assert mark.exists()


def test_a_fault_while_the_configuration_is_read_leaves_a_mark(
    mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("unsee_dist.config.load", stale)
    monkeypatch.setattr("unsee_dist.distributed.process_group.join_world", lambda **_: ALONE)
    monkeypatch.setattr("unsee_dist.distributed.process_group.exit_together", lambda _, code: sys.exit(code))
    with pytest.raises(SystemExit) as ended:
        train.main(["--config", "quickstart"])
    assert ended.value.code == ExitCode.TRANSIENT
    assert mark.read_text() == "step-00000000\n"


def test_a_mark_that_cannot_be_written_hides_no_fault(
    mark: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stale(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(stop_mark, "write_file", stale)
    assert train.end(OSError(errno.ESTALE, "Stale file handle"), ALONE, None, "runs/x") == ExitCode.TRANSIENT
    printed = capsys.readouterr().err
    assert f"UNSEE_STOP_MARK = {mark} cannot be written (Stale file handle)" in printed
    assert "the same command continues" in printed
    assert "Traceback" not in printed
