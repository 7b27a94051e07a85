"""Folders: the files below one, each either read or left out with a reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from unsee_dist.data.corpus.index import INDEX, PREPARING, SIZES
from unsee_dist.data.prepare import formats, opening
from unsee_dist.data.prepare.encoding import is_text
from unsee_dist.errors import UserError, file_error, is_transient

FOLDER = "a folder"
EMPTY = "it is empty"
LeaveOut = Callable[[str, str], None]  # called with the path of what is left out, and why
# Names without a suffix that say what the file is for people: README, LICENSE, Makefile, _SUCCESS of Hadoop.
_ABOUT = frozenset({"Makefile", "Dockerfile", "Justfile", "Gemfile"})


def files_below(folder: str, field: str | None, leave_out: LeaveOut) -> list[str]:
    """The files to read in a folder and all below it, sorted by name. Links are followed, each folder is entered once.

    field: files of JSON that are only known by their content must have it; None = any. Raises UserError when the folder itself
    cannot be listed, TransientError when any entry cannot be looked at for a while: nothing is left out for a passing fault.
    """
    files = []
    for path, entry in _walk(folder, leave_out):
        if why := _unread(path, entry, field):
            leave_out(path, why)
        else:
            files.append(path)
    return sorted(files)


def not_a_file(path: str) -> str | None:
    """Why a path is none to read; None: it is a file that may be read. TransientError: nobody can say for a while."""
    try:
        about = os.stat(path)
    except OSError as error:
        return _refused(path, error, "a link to nothing" if os.path.islink(path) else "it cannot be read")
    if stat.S_ISDIR(about.st_mode):
        return FOLDER
    if not stat.S_ISREG(about.st_mode):
        return "a pipe, a socket or a device"
    if not about.st_size:
        return EMPTY
    return None if os.access(path, os.R_OK, effective_ids=True) else _unopened(path)


def _unopened(path: str) -> str | None:
    """Why a file cannot be opened; None: it can. access() does not tell a missing right from a passing fault."""
    try:
        with open(path, "rb"):
            return None
    except OSError as error:
        return _refused(path, error, "it cannot be read")


def _refused(path: str, error: OSError, why: str) -> str:
    """Why a path is left out that the system refused. TransientError: the fault passes, so the path must not be left out."""
    if is_transient(error):
        raise file_error(f"{path} cannot be read ({error.strerror or error}).", error) from error
    return f"{why} ({error.strerror})"


def _walk(root: str, leave_out: LeaveOut) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every entry below a folder that is no folder."""
    waiting, entered = [root], set[tuple[int, int]]()
    while waiting:
        folder = waiting.pop()
        try:
            about = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if folder == root:
                sentence = f"{root} cannot be listed ({error.strerror}). Give a folder that you may read."
                raise file_error(sentence, error) from error
            leave_out(folder, _refused(folder, error, "it cannot be listed"))
            continue
        if (about.st_dev, about.st_ino) in entered:
            leave_out(folder, "a link to a folder that is read already")
            continue
        if folder != root and _is_corpus({entry.name for entry in entries}):
            leave_out(folder, "a corpus of `unsee prepare`")
            continue
        entered.add((about.st_dev, about.st_ino))
        for entry in entries:
            if not _is_folder(entry):
                yield entry.path, entry
            elif entry.name.startswith("."):
                leave_out(entry.path, "a hidden folder")
            else:
                waiting.append(entry.path)


def _is_corpus(names: set[str]) -> bool:
    """By the names in a folder: a prepared corpus, or an unfinished one. It may be the --out of this very command."""
    return {INDEX, SIZES} <= names or PREPARING in names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a link to where nobody may look: `not_a_file` says why
        _refused(entry.path, error, "")
        return False


def _unread(path: str, entry: os.DirEntry[str], field: str | None) -> str | None:
    """Why a file of a folder is not read; None: it is."""
    name = entry.name
    if name.startswith("."):
        return "a hidden file"
    why = not_a_file(path) or formats.foreign(path)
    if why or formats.by_name(path):
        return why
    if not formats.says_nothing(path):
        return f"{formats.last_suffix(path)} is not a format of `unsee prepare`"
    plain = Path(name).stem if name.lower().endswith(formats.PACKED) else name
    if plain in _ABOUT or plain.startswith("_") or (plain.isupper() and plain.isalpha()):
        return "its name says that it is about the others"
    return _by_content(path, field)


def _by_content(path: str, field: str | None) -> str | None:
    """Why a file whose name says nothing is not read by its content; None: it is."""
    try:
        head = opening.first_bytes(opening.unpacked(path, lambda _: None))
    except UserError:  # damaged: whoever reads it says so and stops
        return None
    if not head or head.isspace():
        return EMPTY
    kind, ending = formats.by_content(head), formats.last_suffix(path)
    if kind == formats.JSON:
        return kind
    if kind == formats.TEXT and formats.mostly_records(path, head):
        return "most of its lines are records, not sentences"
    if kind == formats.TEXT and ending == ".json":
        return "it is not JSON with an object a line"
    if kind == formats.TEXT and not is_text(head):
        return "it is not UTF-8 text"
    record = formats.first_object(head) if kind == formats.JSONL else None
    if record is not None and field is not None and field not in record:
        return f"its JSON has no field {field!r}"
    return None
