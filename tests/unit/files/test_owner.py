"""One command at a time writes into a folder; a killed owner never blocks the next one."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from unsee_dist.errors import ExitCode, UserError
from unsee_dist.files import owner
from unsee_dist.files.owner import Job, Owner, owned, owner_of

HOLD = """
import sys, time
from pathlib import Path
from unsee_dist.files import owner
owner.BEAT_S = 0.05
with owner.owned(Path(sys.argv[1]), "run.dir = r", "Wait."):
    print("holds", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("BEAT_S", 0.05), ("OBSERVE_S", 0.5), ("PATIENCE_S", 0.3), ("SETTLE_S", 0.02)):
        monkeypatch.setattr(owner, name, seconds)
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


def hold(path: Path) -> subprocess.Popen[str]:
    """A process that owns `path` until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    return process


def left_by(path: Path, **changes: object) -> Owner:
    """The file of an owner that was killed, on another machine unless `changes` say otherwise."""
    other = Owner("t", "node-9", "other boot", 4711, "77", 1.7e9)
    other = dataclasses.replace(other, **changes)  # type: ignore[arg-type]
    path.parent.mkdir(exist_ok=True)
    owner.owner_file(path.name).write(path.parent, other)
    return other


def take(path: Path) -> Owner:
    with owned(path, "run.dir = r", "Wait."):
        now = owner_of(path)
        assert now is not None
        assert now.pid == os.getpid()
        return now


def test_the_second_process_is_refused_with_who_since_when_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run" / "owner.json"
    first = hold(path)
    try:
        before = {each: each.read_bytes() for each in path.parent.iterdir()}
        sentence = (
            rf"^run.dir = r is in use by process {first.pid} on {os.uname().nodename}, since 20.* Wait\.$"
        )
        with pytest.raises(UserError, match=sentence), owned(path, "run.dir = r", "Wait."):
            pass
        assert {each: each.read_bytes() for each in path.parent.iterdir()} == before
    finally:
        first.kill()
        first.wait()
    take(path)  # killed: its file is there, and does not count
    assert "waiting" not in capsys.readouterr().err
    assert list(path.parent.iterdir()) == []
    take(tmp_path / "a" / "b" / "owner.json")
    assert not (tmp_path / "a").exists()  # made for nothing


def test_what_was_written_stays_and_the_owner_goes(tmp_path: Path) -> None:
    with owned(tmp_path / "new" / "owner.json", "x", "y"):
        (tmp_path / "new" / "work").touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["work"]


SLURM = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "a", "TORCHELASTIC_RESTART_COUNT": "1"}
NAMELESS = {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "1"}


@pytest.mark.parametrize(
    ("variables", "job", "at_once"),
    [
        (SLURM, Job("Slurm job", "7", 0), True),
        (SLURM, Job("Slurm job", "7", 1), False),  # another step of the same start
        (SLURM, Job("Slurm job", "8", 0), False),
        (SLURM, Job("torchrun", "7", 0), False),
        (TORCHRUN, Job("torchrun", "a", 0), True),
        (NAMELESS, Job("torchrun", "none", 0), False),
        ({}, Job("Slurm job", "7", 0), False),
    ],
)
def test_a_job_that_was_started_again_takes_over_at_once_on_another_node(
    variables: dict[str, str],
    job: Job,
    at_once: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "owner.json"
    left_by(path, jobs=(job,))
    take(path)
    assert ("to see whether it still is" in capsys.readouterr().err) != at_once


def test_an_owner_elsewhere_counts_while_it_keeps_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, ended = tmp_path / "owner.json", threading.Event()
    other = left_by(path, jobs=(Job("Slurm job", "12", 3),))
    keeping = threading.Thread(target=owner._keep, args=(path, other, ended))
    keeping.start()
    with pytest.raises(UserError, match=r"process 4711 on node-9, Slurm job 12, since"):
        take(path)
    assert owner_of(path) == other
    ended.set()
    keeping.join()
    take(path)  # nobody keeps it any more
    assert "node-9" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"\0\0", b'{"format": 9}', b"[" * 10_000])
def test_a_file_that_cannot_be_read_is_observed_too(tmp_path: Path, content: bytes) -> None:
    path, began = tmp_path / "owner.json", time.monotonic()
    path.write_bytes(content)
    take(path)
    assert time.monotonic() - began > 0.4


def test_who_removes_a_dead_owner_waits_for_others_of_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "owner.json"
    dead = left_by(path, machine=owner.own_process().machine, pid=2**22 + 1)
    remover = threading.Thread(target=owner._remove, args=(path, dead, owner._this_process({})))
    with owner._locked(tmp_path):
        remover.start()
        remover.join(0.3)
        assert owner_of(path) == dead
    remover.join()
    assert not path.exists()


def test_who_lost_its_file_at_once_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slower process of another machine has taken it for the dead one's, and a third has made its own."""
    made = owner._make

    def made_and_lost(path: Path, own: owner.Owner) -> bool:
        assert made(path, own)
        path.unlink()
        left_by(path)
        return True

    monkeypatch.setattr(owner, "_make", made_and_lost)
    with pytest.raises(UserError, match="in use by another process that started at the same moment"):
        take(tmp_path / "owner.json")


def test_of_many_that_find_a_dead_owner_one_follows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one machine not by patience: before there was a lock, 21 of 60 rounds of twelve had two owners."""
    monkeypatch.setattr(owner, "SETTLE_S", 0.0)
    for _ in range(5):
        path = tmp_path / "owner.json"
        left_by(path, machine=owner.own_process().machine, pid=2**22 + 1)
        inside, most, refused = [0], [0], [0]
        gate = threading.Barrier(6)

        def enter(
            path: Path = path,
            gate: threading.Barrier = gate,
            inside: list[int] = inside,
            most: list[int] = most,
            refused: list[int] = refused,
        ) -> None:
            gate.wait()
            try:
                with owned(path, "x", "y"):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    time.sleep(0.5)
                    inside[0] -= 1
            except UserError:
                refused[0] += 1

        threads = [threading.Thread(target=enter) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most[0] == 1
        assert refused[0] >= 1
        assert not list(tmp_path.iterdir())


def test_a_suspended_owner_whose_place_was_taken_ends_itself(tmp_path: Path) -> None:
    path = tmp_path / "owner.json"
    first = hold(path)
    left_by(path)  # what another machine would write, having observed it
    assert first.wait(20) == ExitCode.RANK_LOST
    assert owner_of(path) is not None


def test_without_hard_links_a_file_is_made_exclusively(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "owner.json"
    with owned(path, "x", "y"), pytest.raises(UserError, match="in use"), owned(path, "x", "y"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_the_owner_before_removes_at_that_moment_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out" / "preparing" / owner.OWNER
    make = owner._make
    calls = []

    def removed_before(place: Path, own: owner.Owner) -> bool:
        calls.append(place)
        if len(calls) == 1:
            shutil.rmtree(tmp_path / "out")
        return make(place, own)

    monkeypatch.setattr(owner, "_make", removed_before)
    with owned(path, "x", "y"):
        assert path.is_file()
    assert len(calls) == 2


def test_a_folder_that_takes_no_file_is_named_and_not_waited_for() -> None:
    with (
        pytest.raises(UserError, match=r"^/proc cannot be written \(.*\)\."),
        owned(Path("/proc/owner.json"), "run.dir = /proc", "Wait."),
    ):
        pass
