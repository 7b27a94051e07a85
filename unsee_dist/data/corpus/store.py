"""Store: the files of a prepared corpus, in a folder or behind a URL; and a cache of remote blocks on disk.

Bytes are not verified here: `Shards` has the checksums.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

import fsspec

from unsee_dist.errors import TransientError
from unsee_dist.files.remote import is_refused, is_remote
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
                if not isinstance(error, OSError) and not type(error).__module__.startswith("aiohttp"):
                    raise
                if is_refused(error):
                    raise PermissionError(errno.EACCES, str(error) or type(error).__name__) from error
                if attempt == ATTEMPTS - 1:
                    raise Unreachable(str(error) or type(error).__name__) from error
                time.sleep(FIRST_WAIT_S * 2**attempt)
        raise AssertionError

    def sizes(self, names: list[str]) -> dict[str, int | None]:
        """Bytes of each file; None for one that does not exist."""
        if not self.remote:
            with os.scandir(self.path) as entries:
                local = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
            return {name: local.get(name) for name in names}
        listed = {}
        if not self.path.startswith("http"):  # a web server lists no folders
            for entry in self._system.ls(self._root, detail=True):
                listed[entry["name"].rpartition("/")[2]] = entry["size"]
            return {name: listed.get(name) for name in names}
        return {name: self._size(name) for name in names}

    def exists(self) -> bool:
        """Whether the folder exists. True for web servers, which can only be asked for a file."""
        return self.path.startswith("http") or bool(
            self._system.isdir(self._root) if self.remote else os.path.isdir(self.path)
        )

    def _size(self, name: str) -> int | None:
        try:
            return int(self._system.info(f"{self._root}/{name}")["size"])
        except FileNotFoundError as error:
            cause = (
                error.__cause__
            )  # fsspec makes "file not found" of whatever a web server answers, or does not
            if getattr(cause, "status", None) in MISSING:
                return None
            if is_refused(cause):
                raise PermissionError(errno.EACCES, str(cause)) from error
            if type(cause).__module__.startswith("aiohttp"):
                raise Unreachable(f"{self.path_of(name)} cannot be reached ({cause}).") from error
            return None


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


def default_cache_folder() -> Path:
    """$XDG_CACHE_HOME/unsee_dist/blocks, by default below ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "unsee_dist" / "blocks"
