"""Store: the files of a prepared corpus, in a folder or behind a URL; and a cache of remote blocks on disk.

Bytes are not verified here: `Shards` has the checksums.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec

from unsee_dist.errors import TransientError, UserError, is_transient
from unsee_dist.files.remote import is_of_server, is_refused, is_remote, passes, status_of
from unsee_dist.files.trees import open_regular

ATTEMPTS = 5  # to read a remote range
FIRST_WAIT_S = 0.5  # before the second; each next wait is twice as long
# More than that is not read before the file is known to be as large: some stores make a buffer of what they are asked for, and a
# length may be out of a damaged index.
ONE_READ = 1 << 26
MISSING = (404, 410)  # what a web server answers for a file that it does not have
SCAN_EVERY = 64  # blocks written between two checks of the size of the cache


class Unreachable(TransientError):
    """A store that does not answer. The data is not damaged, and other machines may reach it."""


class Refused(UserError):
    """A file that the store does not give to this user. It is not damaged, and never skipped: who has the right reads it."""


class Store:
    """A folder of files, local or remote. Raises OSError. cache: of a remote folder, for those who know what is right."""

    _system: fsspec.AbstractFileSystem  # of a remote folder only
    _root: str

    def __init__(self, path: str | Path, cache: BlockCache | None = None) -> None:
        self.path, self.cache = str(path), cache
        self.remote = is_remote(self.path)
        if self.remote:
            self._system, self._root = fsspec.core.url_to_fs(self.path)

    def path_of(self, name: str) -> str:
        """The path or URL of a file."""
        return f"{self.path.rstrip('/')}/{name}"

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file; fewer at its end."""
        if self.remote:
            return self._read_remote(name, offset, None if length is None else offset + length)
        with open_regular(Path(self.path) / name) as file:
            left = max(os.fstat(file.fileno()).st_size - offset, 0)
            file.seek(offset)
            # never more than that: a length out of a damaged index would become a buffer
            return file.read(left if length is None else min(length, left))

    def _read_remote(self, name: str, start: int, end: int | None) -> bytes:
        """A range of a remote file. Passing network errors are retried."""
        for attempt in range(ATTEMPTS):
            try:
                if end is not None and end - start > ONE_READ:
                    end = min(end, self._size(name) or end)
                if end is not None and end <= start:
                    return b""
                return self._system.cat_file(f"{self._root}/{name}", start=start or None, end=end)
            except FileNotFoundError:
                raise
            except Exception as error:
                if not isinstance(error, OSError) and not is_of_server(error):
                    raise
                if is_refused(error):
                    raise _permission_error(error, self.path_of(name)) from error
                if attempt == ATTEMPTS - 1:
                    raise Unreachable(str(error) or type(error).__name__) from error
                time.sleep(FIRST_WAIT_S * 2**attempt)
        raise AssertionError

    def sizes(self, names: list[str]) -> dict[str, int | None]:
        """Bytes of each file; None for one that does not exist."""
        if not self.remote:
            wanted = set(names)
            with os.scandir(self.path) as entries:
                local = {entry.name: _bytes_of(entry) for entry in entries if entry.name in wanted}
            return {name: local.get(name) for name in names}
        listed = {}
        if not self.path.startswith("http"):  # a web server lists no folders
            with self._asking(self.path):
                for entry in self._system.ls(self._root, detail=True):
                    listed[entry["name"].rpartition("/")[2]] = entry["size"]
            return {name: listed.get(name) for name in names}
        return {name: self._size(name) for name in names}

    def exists(self) -> bool:
        """Whether the folder exists. True for web servers, which can only be asked for a file."""
        if not self.remote or self.path.startswith("http"):
            return self.remote or os.path.isdir(self.path)
        with self._asking(self.path):
            return bool(self._system.isdir(self._root))

    def explained(self, error: OSError, name: str | None = None) -> UserError | TransientError | None:
        """The sentence about a file that could not be read (absent: the one that the error names) though it may be whole;
        None where it is missing or damaged."""
        where = self.path_of(name) if name is not None else str(error.filename or self.path)
        why = error.strerror or str(error) or type(error).__name__
        if isinstance(error, Unreachable):
            return Unreachable(f"{where} cannot be reached ({why}).")
        if is_transient(error):
            return TransientError(f"{where} cannot be read now ({why}).")
        if isinstance(error, PermissionError):
            return Refused(
                f"{where} cannot be read ({why}). Get the right to read it, or give a corpus that you may read."
            )
        return None

    def _size(self, name: str) -> int | None:
        try:
            with self._asking(self.path_of(name)):
                return int(self._system.info(f"{self._root}/{name}")["size"])
        except FileNotFoundError:
            return None

    @contextmanager
    def _asking(self, where: str) -> Iterator[None]:
        """PermissionError or Unreachable where a server refuses, or does not answer; any other error stays what it is."""
        try:
            yield
        except Exception as error:
            # fsspec makes "file not found" of everything that a web server answers, or does not
            answer = error.__cause__ if isinstance(error, FileNotFoundError) else error
            if status_of(answer) in MISSING:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), where) from error
            if not isinstance(answer, OSError) and not is_of_server(answer):
                raise
            if is_refused(answer):
                raise _permission_error(answer, where) from error
            if is_of_server(answer) or passes(error):
                raise Unreachable(f"{where} cannot be reached ({answer}).") from error
            raise


def _permission_error(error: BaseException | None, where: str) -> PermissionError:
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return PermissionError(errno.EACCES, why, where)


class BlockCache:
    """Blocks by key on disk, shared by all processes of this machine, the least recently read ones dropped.

    limit_bytes: exceeded by what the processes write between two checks, SCAN_EVERY blocks each.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self._until_scan = 0

    def get(self, key: str) -> bytes | None:
        """The bytes kept under a key, or None."""
        path = self.folder / key
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:  # never kept, or just dropped by another process
            return None
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep bytes. On a full disk, or where nothing may be written, nothing is kept, which costs only speed."""
        temporary = self.folder / f"{key}.{os.getpid()}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(self.folder / key)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            return
        self._until_scan -= 1
        if self._until_scan < 0:
            self._until_scan = SCAN_EVERY
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        with os.scandir(self.folder) as entries:
            kept = []
            for entry in entries:
                try:
                    kept.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
                except FileNotFoundError:  # another process dropped it
                    continue
        excess = sum(size for _, size, _ in kept) - self.limit_bytes
        for _, size, path in sorted(kept):
            if excess <= 0:
                break
            Path(path).unlink(missing_ok=True)
            excess -= size


def _bytes_of(entry: os.DirEntry[str]) -> int | None:
    """None of what is no file, or a link to nothing or to itself."""
    try:
        return entry.stat().st_size if entry.is_file() else None
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        return None


def default_cache_folder() -> Path:
    """$XDG_CACHE_HOME/unsee_dist/blocks, by default below ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "unsee_dist" / "blocks"
