"""Opening: the bytes of an input, local or at a URL, decompressed; a failure is a UserError.

A name with `://` goes to fsspec (s3, gs, http, hf, memory, ...), any other is a path.
"""

from __future__ import annotations

import io
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import fsspec
import xxhash
import zstandard

from unsee_dist.data.prepare.formats import FORMATS, GZIP, HEAD_BYTES, ZSTD, by_name, printable, suffixes
from unsee_dist.errors import TransientError, UserError, file_error
from unsee_dist.files.remote import is_of_server, is_remote, passes
from unsee_dist.masking import masked

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK_BYTES = 256 * 1024
# Packed bytes that are unpacked at once: a thousand times as much at most in gzip, thirty thousand times in zstd.
PACKED_BYTES = 4096
# Properties of a remote object that change with its content, where its store has them.
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created", "blob_id")

Advance = Callable[[int], None]  # called with the number of bytes read, for a progress bar


@dataclass(frozen=True)
class InputDescription:
    """An input of a preparation: its name without the folder, its size (0 = unknown) and a digest of it."""

    name: str
    bytes: int
    xxh3: str


class Decompressor(Protocol):
    """What zlib and zstandard share."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def describe(name: str) -> InputDescription:
    """The name, size and digest of an input. The digest of a remote one is that of its store's properties."""
    if is_remote(name):
        with errors_as_sentences(name):
            system, path = fsspec.core.url_to_fs(name)
            info = system.info(path)
        properties = {key: str(info[key]) for key in _VERSIONS if key in info} | {"size": info.get("size")}
        digest = xxhash.xxh3_128_hexdigest(json.dumps(properties, sort_keys=True).encode())
        size = info.get("size") or 0
        return InputDescription(masked(printable(name)), size, digest)  # it is written into index.json
    state, size = xxhash.xxh3_128(), 0
    for chunk in raw(name, lambda _: None):
        state.update(chunk)
        size += len(chunk)
    return InputDescription(printable(Path(name).name), size, state.hexdigest())


def is_pipe(name: str) -> bool:
    """Whether a path is a pipe, which can be read once only: <(zcat f), a FIFO, /dev/stdin."""
    if is_remote(name):
        return False
    try:
        mode = os.stat(name).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode)


@contextmanager
def opened(name: str) -> Iterator[IO[bytes]]:
    """A binary file, which can seek unless it is a pipe. UserError when it cannot be opened or read; what the block itself
    raises stays what it is."""
    with ExitStack() as stack:
        with errors_as_sentences(name):
            if is_remote(name):
                file = stack.enter_context(fsspec.open(name, "rb"))
            else:
                _check_kind(name)
                file = stack.enter_context(open(name, "rb", buffering=0))
        yield io.BufferedReader(_Reading(name, file), CHUNK_BYTES)


class _Reading(io.RawIOBase):
    """A file whose failures are sentences."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self._name, self._file = name, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        with errors_as_sentences(self._name):
            return int(self._file.readinto(buffer))  # type: ignore[attr-defined]  # IO[bytes] lacks it, files have it

    def seek(self, place: int, whence: int = 0, /) -> int:
        with errors_as_sentences(self._name):
            return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()


def _check_kind(name: str) -> None:
    """UserError unless a path is that of a file or a pipe."""
    try:
        mode = os.stat(name).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise UserError(f"{name} does not exist. {FORMATS} Or write installed-docs.") from error
    if stat.S_ISDIR(mode):
        raise UserError(f"{name} is a folder. Name the files in it: {name}/*.txt")
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        raise UserError(f"{name} is a device or a socket, not a file. {FORMATS}")


def raw(name: str, advance: Advance) -> Iterator[bytes]:
    """The bytes of the file, unchanged."""
    with opened(name) as file:
        while chunk := file.read(CHUNK_BYTES):
            advance(len(chunk))
            yield chunk


def head(name: str) -> bytes:
    """The first bytes of the file, HEAD_BYTES or fewer, unchanged."""
    return first_bytes(raw(name, lambda _: None))


def first_bytes(chunks: Iterator[bytes]) -> bytes:
    """The first HEAD_BYTES of some chunks, or fewer."""
    start = b""
    for chunk in chunks:
        start += chunk
        if len(start) >= HEAD_BYTES:
            break
    return start[:HEAD_BYTES]


def unpacked(name: str, advance: Advance) -> Iterator[bytes]:
    """The bytes of the file, decompressed according to its last suffix, or to its content where the name says nothing."""
    chunks, ending = raw(name, advance), suffixes(name)[-1:]
    if ending == [".gz"]:
        return decompressed(name, chunks, of_gzip)
    if ending == [".zst"]:
        return decompressed(name, chunks, of_zstd)
    if by_name(name) is not None:
        return chunks
    first = next(chunks, b"")
    whole = chain([first], chunks)
    if first.startswith(GZIP):
        return decompressed(name, whole, of_gzip)
    return decompressed(name, whole, of_zstd) if first.startswith(ZSTD) else whole


def of_gzip() -> Decompressor:
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)


def of_zstd() -> Decompressor:
    return zstandard.ZstdDecompressor().decompressobj()


@contextmanager
def errors_as_sentences(name: str) -> Iterator[None]:
    """Turn the errors of file systems and stores into a UserError or a TransientError."""
    try:
        yield
    except ImportError as error:
        raise UserError(f"{name} cannot be read ({error}). Install what it names.") from error
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise
        raise UserError(f"{name} cannot be read ({error}). {FORMATS}") from error
    except Exception as error:
        if is_of_server(error):
            raise _of_server(name, error) from error
        if not isinstance(error, OSError):
            raise
        why = error.strerror or str(error) or type(error).__name__
        raise file_error(f"{name} cannot be read ({why}). Give a file that you may read.", error) from error


def _of_server(name: str, error: Exception) -> UserError | TransientError:
    """By what a server has answered. Too slow, too many, its own failures and no answer at all pass."""
    sentence = (
        f"{name} cannot be read ({error.__cause__ or error}). Check the URL, or copy the file here first."
    )
    return TransientError(sentence) if passes(error) else UserError(sentence)


def decompressed(name: str, chunks: Iterator[bytes], start: Callable[[], Decompressor]) -> Iterator[bytes]:
    """Decompress members or frames one after the other; zeros after one are padding. zstandard's own reader does not
    report a cut file."""
    unpacker, open_frame, done = start(), False, 0
    for chunk in chunks:
        for begin in range(0, len(chunk), PACKED_BYTES):
            rest = chunk[begin : begin + PACKED_BYTES]
            while rest := rest if open_frame or not done else rest.lstrip(b"\0"):
                try:
                    yield unpacker.decompress(rest)
                except (zlib.error, zstandard.ZstdError, MemoryError) as error:
                    raise _not_unpacked(name, error, done if not open_frame else 0) from error
                open_frame = not unpacker.eof
                rest = b"" if open_frame else unpacker.unused_data
                if not open_frame:
                    unpacker, done = start(), done + 1
    if open_frame:
        raise UserError(f"{name} ends in the middle: the file is cut off. Copy it again.")


def _not_unpacked(name: str, error: Exception, members: int) -> UserError:
    """members: complete ones before, when the error is at the start of another."""
    if "too much memory" in str(error):
        return UserError(
            f"{name} cannot be decompressed ({error}): it was packed with a larger window (zstd --long). Write "
            "`zstd -d --long=31 -c FILE | zstd -o NEW.zst`, and give NEW.zst."
        )
    if members:
        return UserError(
            f"{name} cannot be decompressed: {members} whole parts are followed by bytes that are not a part ({error}). Copy it "
            "again, or unpack it yourself and give the text."
        )
    return UserError(f"{name} cannot be decompressed ({error}). Copy it again, or rename it.")
