"""A bug keeps its traceback, its exit code and its rank, wherever it is; a passing fault is no mistake of the user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from integration import ranks
from integration import tiny as launch
from integration.tiny import Tiny

from unsee_dist.errors import REPORT_TO, ExitCode

PLANT = """
import errno, os
def plant(phase, step):
    if (phase, step) == ({phase!r}, {step}) and os.environ.get("RANK") == "1":
        raise {raised}
if "RANK" in os.environ:
    from unsee_dist.supervision import phases
    before = phases.failpoint
    def failpoint(phase, step):
        before(phase, step)
        plant(phase, step)
    phases.failpoint = failpoint
"""
IN_A_WORKER = """
import multiprocessing, os
from unsee_dist.data.corpus import shards
read = shards.Shards.read
def planted(self, block):
    if multiprocessing.parent_process() is not None and os.environ.get("RANK") == "1":
        raise {raised}
    return read(self, block)
shards.Shards.read = planted
"""


def planted(folder: Path, code: str) -> str:
    """A PYTHONPATH whose sitecustomize is `code`: python runs it first, in workers, too."""
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    return f"{folder}{os.pathsep}{launch.REPOSITORY}"


def start(tiny: Tiny, name: str, code: str, *overrides: str) -> tuple[list[int], str]:
    """Exit codes of two ranks, and all that they printed."""
    path = planted(tiny.folder / f"site-{name}", code)
    started = ranks.start(2, tiny.config, f"run.dir={tiny.folder / name}", *overrides, PYTHONPATH=path)
    return started.wait(240), started.text()


@pytest.mark.parametrize(
    ("name", "raised"),
    [
        ("key", "KeyError('planted')"),
        pytest.param("value", "ValueError('planted')", marks=pytest.mark.slow),
        pytest.param("zero", "ZeroDivisionError('planted')", marks=pytest.mark.slow),
        pytest.param("file", "FileNotFoundError(errno.ENOENT, 'planted')", marks=pytest.mark.slow),
    ],
)
def test_in_a_step_of_one_rank(tiny: Tiny, name: str, raised: str) -> None:
    codes, text = start(tiny, f"step-{name}", PLANT.format(phase="forward", step=3, raised=raised))
    assert codes[1] == ExitCode.BUG, text
    assert codes[0] not in (0, ExitCode.MISTAKE), text  # it learns that rank 1 has left
    assert "Traceback" in text
    assert f"{raised.split('(')[0]}" in text
    assert "rank 1: this is a bug of unsee_dist" in text
    assert text.count(REPORT_TO) == 1


def test_in_the_thread_that_saves(tiny: Tiny) -> None:
    code = PLANT.format(phase="save.written", step=3, raised="KeyError('planted')")
    codes, text = start(tiny, "saving", code, "checkpoint.background=true", "checkpoint.every=3")
    assert codes == [ExitCode.BUG, ExitCode.BUG], text
    assert "KeyError: 'planted'" in text
    assert "rank 1: this is a bug of unsee_dist" in text
    assert "rank 1 has failed; its traceback is above or in its own log" in text


@pytest.mark.slow
def test_in_a_worker_of_the_stream(tiny: Tiny) -> None:
    code = IN_A_WORKER.format(raised="KeyError('planted')")
    codes, text = start(tiny, "worker", code, "data.workers=1")
    assert codes[1] == ExitCode.BUG, text
    assert "in planted" in text  # the worker's own traceback
    assert "this is a bug of unsee_dist" in text


@pytest.mark.slow
def test_a_sentence_from_a_worker_stays_one(tiny: Tiny) -> None:
    code = "from unsee_dist.errors import UserError\n" + IN_A_WORKER.format(
        raised="UserError('write this instead')"
    )
    codes, text = start(tiny, "worker-mistake", code, "data.workers=1")
    assert codes[1] == ExitCode.MISTAKE, text
    assert "write this instead" in text
    assert "Traceback" not in text.split("rank 1:")[1]


@pytest.mark.parametrize(
    ("name", "code", "overrides"),
    [
        ("step", PLANT.format(phase="forward", step=3, raised="OSError(errno.EIO, 'planted')"), ()),
        pytest.param(
            "worker",
            "import errno\n" + IN_A_WORKER.format(raised="OSError(errno.ESTALE, 'planted')"),
            ("data.workers=1",),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_passing_fault_is_neither(tiny: Tiny, name: str, code: str, overrides: tuple[str, ...]) -> None:
    codes, text = start(tiny, f"passing-{name}", code, *overrides)
    assert codes[1] == ExitCode.TRANSIENT, text
    assert "planted" in text
    assert "the same command continues" in text
    assert "bug of unsee_dist" not in text


def test_a_passing_fault_while_saving_ends_all_ranks_alike(tiny: Tiny) -> None:
    code = PLANT.format(phase="save.written", step=3, raised="OSError(errno.ESTALE, 'planted')")
    codes, text = start(tiny, "passing-save", code, "checkpoint.every=3")
    assert codes == [ExitCode.TRANSIENT, ExitCode.TRANSIENT], text
    assert "Traceback" not in text
