"""Where Ray Tune keeps the state of a search: the sweep's folder, in which a file appears whole or stays as it was.

Tune copies its state over the old one every few seconds. Stopped in the middle, by a full disk or a kill, it leaves a file that no
search can go on with. (Of an error at a file's end pyarrow says nothing, and Tune would only log it: the next copy comes soon.)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsspec.implementations.local import LocalFileSystem

from unsee_dist.files.atomic import write_pieces

if TYPE_CHECKING:
    from pyarrow.fs import PyFileSystem


def whole_files() -> PyFileSystem:
    """The local file system for `storage_filesystem`."""
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return PyFileSystem(FSSpecHandler(_WholeFiles()))


class _WholeFiles(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    def _open(self, path: str, mode: str = "rb", **named: Any) -> Any:  # a file, as fsspec has them
        if mode == "wb":
            return _WholeFile(Path(self._strip_protocol(path)))
        return super()._open(path, mode, **named)


class _WholeFile:
    """What is written is kept in memory and is the file's when it is closed. One that nobody closes, since an error came, changes
    nothing: so it is not one of io's, which close themselves."""

    def __init__(self, path: Path) -> None:
        self._path, self._pieces, self.closed = path, [b""], False

    def write(self, data: Any) -> int:  # anything with bytes
        self._pieces.append(bytes(data))
        return len(self._pieces[-1])

    def tell(self) -> int:
        return sum(map(len, self._pieces))

    def flush(self) -> None:
        """Nothing is on the disk before it is whole."""

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            write_pieces(self._path, self._pieces)
