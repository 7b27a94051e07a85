"""A bug in a process of the preparation keeps its traceback and its exit code; a passing fault and a mistake keep theirs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from integration import tiny

from unsee_dist.errors import REPORT_TO, ExitCode

PLANT = """
import errno, multiprocessing
from unsee_dist.errors import UserError
from unsee_dist.data.prepare import sort
def planted(*_):
    if multiprocessing.parent_process() is not None:
        raise {raised}
    return split(*_)
split, sort._clean = sort._clean, planted
"""


@pytest.mark.parametrize(
    ("raised", "code", "shown"),
    [
        ("KeyError('planted')", ExitCode.BUG, "KeyError: 'planted'"),
        ("ValueError('planted')", ExitCode.BUG, "ValueError: planted"),
        ("OSError(errno.EIO, 'planted')", ExitCode.TRANSIENT, "the same command continues"),
        ("UserError('write this instead')", ExitCode.MISTAKE, "write this instead"),
    ],
)
def test_in_a_process_that_sorts(tmp_path: Path, raised: str, code: ExitCode, shown: str) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(PLANT.format(raised=raised), encoding="utf-8")
    for number in range(2):
        (tmp_path / f"{number}.txt").write_text("\n".join(tiny.corpus(200)) + "\n", encoding="utf-8")
    inputs = [str(tmp_path / f"{number}.txt") for number in range(2)]
    path = f"{tmp_path / 'site'}{os.pathsep}{tiny.REPOSITORY}"
    command = [
        str(tiny.BIN / "unsee"),
        "prepare",
        *inputs,
        "--out",
        str(tmp_path / "out"),
        "--processes",
        "2",
    ]
    done = tiny.run(command, 240, env=tiny.environment(PYTHONPATH=path))
    assert done.returncode == code, done.stderr
    assert shown in done.stderr
    assert ("in planted" in done.stderr) == (code is ExitCode.BUG)  # the process's own traceback
    assert (REPORT_TO in done.stderr) == (code is ExitCode.BUG)
    assert not list(tmp_path.glob("out/shard-*"))
