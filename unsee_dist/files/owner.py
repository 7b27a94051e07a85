"""Who writes into a folder: one command at a time, from any machine.

    take      the file appears by a hard link, which only one process can make, on a network file system too
    keep      a thread sets its time of change every BEAT_S seconds
    release   the file is removed

A killed owner leaves its file. That does not hold when

    its process has ended                       same machine: pid, start of the process and boot tell at once
    a later start of the same job asks          Slurm and torchrun have ended the earlier one
    nobody has kept the file for OBSERVE_S      any other machine or container; no two clocks are compared

An owner that was suspended, and whose place was taken meanwhile, ends itself at its next turn.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import with_config

from unsee_dist.errors import ExitCode, UserError, ends_process, file_error, writing
from unsee_dist.files.folders import make_folder, remove_empty
from unsee_dist.files.process import Process, has_ended, own_process
from unsee_dist.files.records import STRICT, RecordFile
from unsee_dist.log import LOG

OWNER = "owner.json"  # in a folder that only one command may write into
BEAT_S = 5.0
BYTES = 1 << 16  # a file has some hundred
OBSERVE_S = 30.0  # six beats: an owner that is only slow is not taken for a dead one
PATIENCE_S = 10.0  # for a process of this machine that is just ending: a killed one frees its memory first
VANISHED = 100  # files in a row that could neither be made nor read: /proc takes none, and says that its folder is gone
SETTLE_S = 0.2  # longer than from reading a file to renaming it: see `_remove`

# Who starts a job again under the same name, and counts the starts. (torchrun's name is "none" when nobody gave one.)
JOBS = (
    ("Slurm job", "SLURM_JOB_ID", "SLURM_RESTART_COUNT"),
    ("torchrun", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"),
    ("PBS job", "PBS_JOBID", ""),
    ("LSF job", "LSB_JOBID", ""),
)


@with_config(STRICT)
@dataclass(frozen=True)
class Job:
    """A job of a scheduler or launcher. starts: how often it was started again."""

    kind: str
    id: str
    starts: int


@dataclass(frozen=True)
class Owner:
    """A process that writes into a folder. token: new for each, so that two owners are never taken for one.

    machine, pid, started: see `Process`. since: seconds since 1970, for people.
    """

    token: str
    host: str
    machine: str
    pid: int
    started: str
    since: float
    jobs: tuple[Job, ...] = ()

    def __str__(self) -> str:
        jobs = "".join(f", {job.kind} {job.id}" for job in self.jobs)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host}{jobs}, since {since}"

    @property
    def ended(self) -> bool:
        """Whether its process is seen to have ended; False also where that cannot be seen."""
        return has_ended(Process(self.machine, self.pid, self.started))


def owner_file(name: str) -> RecordFile[Owner]:
    return RecordFile(
        name, Owner, version=1, remedy="Delete it when no command of unsee_dist uses this folder."
    )


def owner_of(path: Path) -> Owner | None:
    """The owner that a file names, ended or not; None when there is none. UserError: the file is damaged."""
    return owner_file(path.name).read(path.parent)


@contextmanager
def owned(path: Path, what: str, remedy: str) -> Iterator[None]:
    """This process alone writes what `path` stands for while the block runs. `path`'s folder is made when missing.

    what, remedy: the subject and the end of the sentence for a command that comes second. UserError: another process
    owns it; nothing was changed.
    """
    with writing(what, "Write another one."):
        new = make_folder(path.parent)
    own = _this_process(os.environ)
    ended = threading.Event()
    try:
        _take(path, own, what, remedy)
        threading.Thread(target=_keep, args=(path, own, ended), name="owner", daemon=True).start()
        yield
    finally:
        ended.set()
        _release(path, own)
        remove_empty(new)  # where nothing is in it, the work has not begun


def _this_process(environment: Mapping[str, str]) -> Owner:
    machine, pid, started = own_process()
    jobs = tuple(
        Job(kind, name, int(environment.get(count) or 0))
        for kind, key, count in JOBS
        if (name := environment.get(key, "none")) != "none"
    )
    return Owner(uuid.uuid4().hex, socket.gethostname(), machine, pid, started, time.time(), jobs)


def _take(path: Path, own: Owner, what: str, remedy: str) -> None:
    """Make the file, after an owner that has ended is removed. UserError: there is one that has not."""
    until = time.monotonic() + PATIENCE_S
    vanished = 0
    while not _make(path, own):
        other = _read(path)
        vanished = vanished + 1 if other is None else 0
        if vanished > VANISHED:
            raise UserError(f"{path.parent} cannot be written (no file stays there). Choose another place.")
        if isinstance(other, Owner) and _is_of_this_machine(other) and not other.ended:
            if time.monotonic() > until:
                raise _refusal(what, str(other), remedy)
            time.sleep(SETTLE_S)
        elif _is_left(path, other, own, what, remedy):
            _remove(path, other, own)
    if _read(path) != own:  # a slower process has removed ours for the one before, and a third has come
        raise _refusal(what, "another process that started at the same moment", remedy)


def _refusal(what: str, owner: str, remedy: str) -> UserError:
    return UserError(f"{what} is in use by {owner}. Nothing was changed. {remedy}")


def _is_of_this_machine(owner: Owner) -> bool:
    return owner.machine != "" and owner.machine == own_process().machine


def _is_left(path: Path, other: Owner | bytes | None, own: Owner, what: str, remedy: str) -> bool:
    """Whether the owner of a file is gone. Waits up to OBSERVE_S where only its beat can tell. UserError: it beats."""
    if other is None:
        return False
    if isinstance(other, Owner) and (other.ended or any(_follows(job, other) for job in own.jobs)):
        return True
    before = _changed(path)
    who = str(other) if isinstance(other, Owner) else f"an owner that {path} does not name readably"
    LOG.warning(f"{what} was in use by {who}: waiting {OBSERVE_S:g} s to see whether it still is")
    until = time.monotonic() + OBSERVE_S
    while time.monotonic() < until:
        time.sleep(min(1.0, OBSERVE_S / 10))
        if _read(path) != other:
            return False
        if _changed(path) != before:
            raise _refusal(what, who, remedy)
    return True


def _follows(job: Job, owner: Owner) -> bool:
    """Whether a job is a later start of the owner's."""
    return any((job.kind, job.id) == (each.kind, each.id) and job.starts > each.starts for each in owner.jobs)


def _make(path: Path, own: Owner) -> bool:
    """Make the file with its content, in one move. False: there is one."""
    ready = path.with_name(f".{path.name}.{own.token}")
    try:
        owner_file(ready.name).write(path.parent, own)
        with writing(path):
            os.link(ready, path)
    except UserError as error:
        cause = error.__cause__
        if isinstance(cause, FileExistsError):
            return _read(path) == own  # a server whose answer was lost is asked twice
        # the owner before has ended just now, and removed its folder
        if isinstance(cause, FileNotFoundError):
            path.parent.mkdir(parents=True, exist_ok=True)
            return False
        if not isinstance(cause, OSError):
            raise
        if cause.errno not in NO_LINKS:  # the folder, and not the hidden file, is what the user knows
            sentence = (
                f"{path.parent} cannot be written ({cause.strerror}). Make room, or choose another place."
            )
            raise file_error(sentence, cause) from cause
        return _make_without_links(path, ready)
    finally:
        with suppress(OSError):  # of a read-only disk, whose sentence is on its way
            ready.unlink(missing_ok=True)
    return True


# What file systems without hard links answer: FAT, some that are mounted over a network, some of containers.
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


def _make_without_links(path: Path, ready: Path) -> bool:
    """Exclusive too, but a kill may leave the file empty: then it is observed before it is removed."""
    try:
        with path.open("xb") as file:
            file.write(ready.read_bytes())
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> Owner | bytes | None:
    """The owner; the bytes of a file that names none readably; or None when there is no file."""
    try:
        return owner_of(path)
    except UserError:
        with suppress(FileNotFoundError), path.open("rb") as file:
            return file.read(BYTES)
    return None


def _changed(path: Path) -> int:
    """The file's time of change; it is opened first, since a client of NFS asks the server only then."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return 0


def _remove(path: Path, other: Owner | bytes | None, own: Owner) -> None:
    """Remove the file of an owner that is gone. Processes of one machine do it one after another. Of those of several, only
    one can rename it, and a slower one may find the file of the faster one in its hand, and gives it back."""
    moved = path.with_name(f".{path.name}.{own.token}.gone")
    with _locked(path.parent):
        if _read(path) != other:
            return
        try:
            path.rename(moved)
        except FileNotFoundError:
            return
        if _read(moved) != other:
            with suppress(OSError):
                os.link(moved, path)
        moved.unlink(missing_ok=True)
    time.sleep(SETTLE_S)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process of this machine at a time. Some network file systems refuse it: then nothing is locked."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@ends_process
def _keep(path: Path, own: Owner, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        with suppress(OSError):  # a file system that fails for a while, or a folder that somebody has removed
            other = _read(path)
            if isinstance(other, Owner) and other != own and not ended.is_set():
                _end(path, other)
            os.utime(path)


def _end(path: Path, other: Owner) -> None:
    print(
        f"{path.parent} was taken over by {other}: this process did not answer for {OBSERVE_S:g} s. It ends, so that "
        "two do not write into one folder.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(ExitCode.RANK_LOST)


def _release(path: Path, own: Owner) -> None:
    with suppress(OSError):
        if _read(path) == own:
            path.unlink()
