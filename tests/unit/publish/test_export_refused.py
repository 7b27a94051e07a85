"""What an export cannot read or write is named as what it is, and a bug of ours stays one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unsee_dist.errors import ExitCode, TransientError, UserError, exit_code_of
from unsee_dist.publish import export as publish
from unsee_dist.publish.export import Evaluation, export

Fail = Callable[[Path, Path], Exception]  # the new folder, the source


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def _export(source: Path, monkeypatch: pytest.MonkeyPatch, fail: Fail) -> None:
    def write(new: Path, path: Path, *_: Any) -> None:
        raise fail(new, path)

    monkeypatch.setattr(publish, "_write", write)
    model: Any = None
    export(str(source), model, Evaluation(), source.parent / "out", False)


def _system(number: int, *names: Path) -> OSError:
    first, second = (*map(str, names), None, None)[:2]
    return OSError(number, os.strerror(number), first, None, second)


@pytest.mark.parametrize(
    "fail",
    [
        lambda _new, path: _system(errno.ENOENT, path / "config.json"),
        lambda _new, _path: KeyError("planted"),
        lambda _new, _path: ValueError("planted"),
    ],
)
def test_a_bug_of_ours_is_no_out_that_cannot_be_written(
    fail: Fail, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises((OSError, KeyError, ValueError)) as met:
        _export(source, monkeypatch, fail)
    assert exit_code_of(met.value) is ExitCode.BUG
    assert met.value.__context__ is None
    assert not (source.parent / "out").exists()


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        (lambda _new, path: _system(errno.EACCES, path / "a"), "run cannot be read: .*run/a "),
        (lambda new, _path: _system(errno.EACCES, new / "a"), "--out .*out cannot be written"),
        (lambda new, path: _system(errno.ENOSPC, path / "a", new / "a"), "--out .*out cannot be written"),
        (lambda _new, _path: RuntimeError("full (os error 28)"), "--out .*out cannot be written"),
    ],
)
def test_what_the_system_refuses_is_named(
    fail: Fail, words: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=words):
        _export(source, monkeypatch, fail)


def test_an_input_that_fails_for_a_while_is_named(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TransientError, match="run cannot be read"):
        _export(source, monkeypatch, lambda _new, path: _system(errno.EIO, path / "a"))


def test_a_folder_that_cannot_be_made_is_out(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Path:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("unsee_dist.files.atomic.begin_folder", refuse)
    with pytest.raises(UserError, match=r"--out .*out cannot be written"):
        _export(source, monkeypatch, lambda _new, _path: KeyError("planted"))
