"""Paths that are URLs: `s3://`, `gs://`, `https://`, `hf://`, `memory://` and what else fsspec knows; and whether a fault of
a store, of a web server or of the Hugging Face Hub passes by itself."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from unsee_dist.errors import UserError, is_transient, system_error

PATIENCE = (408, 429)  # too slow, too many requests: the only statuses of 4xx that pass
CLIENTS = frozenset({"aiohttp", "httpx", "httpx2", "huggingface_hub", "requests"})
# What libraries raise where a server does not answer, or not to the end.
NO_ANSWER = {
    *(
        (root, name)
        for root in ("httpx", "httpx2")
        for name in ("TimeoutException", "NetworkError", "RemoteProtocolError")
    ),
    *(("requests", name) for name in ("ConnectionError", "Timeout", "ChunkedEncodingError")),
    *(("aiohttp", name) for name in ("ClientConnectionError", "ClientPayloadError")),
}


def is_remote(name: str) -> bool:
    """Whether a name is a URL."""
    return "://" in name


def status_of(error: BaseException | None) -> int | None:
    """The status that a web server has answered with, by an error of aiohttp, httpx or requests."""
    answer = getattr(error, "response", None)
    status = getattr(error, "status", None) if answer is None else getattr(answer, "status_code", None)
    return status if isinstance(status, int) else None


def is_refused(error: BaseException | None) -> bool:
    """Whether a store refuses this for good: no right, wrong credentials, or a status of 4xx. Too slow and too many pass."""
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EINVAL:
        return True
    status = status_of(error)
    return status is not None and 400 <= status < 500 and status not in PATIENCE


def passes(error: Exception) -> bool:
    """Whether a fault of a server passes by itself: it does not answer, or says that it cannot now. Not: what it refuses, a
    host that nobody knows, and all that is asked of the Hub while it must not be asked (HF_HUB_OFFLINE).

    Decided by the first of the error and of what it was raised for that has a status or the number of a system's error.
    """
    reasons = list(_with_reasons(error))
    if any(type(each).__name__ == "OfflineModeIsEnabled" for each in reasons):
        return False
    for each in reasons:
        if (status := status_of(each)) is not None:
            return status in PATIENCE or status >= 500
        if (refused := system_error(each)) is not None:
            return is_transient(refused)
    if any(_is_no_answer(each) for each in reasons):
        return True
    # datasets has words of its own for a Hub that does not answer and for one that must not be asked
    return not _is_offline() and any(isinstance(each, ConnectionError | TimeoutError) for each in reasons)


def is_of_server(error: BaseException | None) -> bool:
    """Whether a library that asks servers raised this, or the error that it was made of: fsspec says "file not found" of
    whatever a web server answers, or does not."""
    return any(
        cls.__module__.partition(".")[0] in CLIENTS
        for each in (error, getattr(error, "__cause__", None))
        for cls in type(each).__mro__
    )


def _with_reasons(error: Exception | None) -> Iterator[Exception]:
    """An error and those that it was raised for, also where a library hides them (`from None`)."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        reason = error.__cause__ or error.__context__
        error = reason if isinstance(reason, Exception) else None


def _is_no_answer(error: BaseException) -> bool:
    return any((cls.__module__.partition(".")[0], cls.__name__) in NO_ANSWER for cls in type(error).__mro__)


def _is_offline() -> bool:
    """Whether the Hub must not be asked, as the libraries that are loaded understand it."""
    hub, datasets = sys.modules.get("huggingface_hub.constants"), sys.modules.get("datasets.config")
    return any(bool(getattr(each, "HF_HUB_OFFLINE", False)) for each in (hub, datasets))


URL = re.compile(
    r"([A-Za-z][\w+.-]+):/+(.*)", re.DOTALL
)  # with one slash or several: a letter alone is a drive


def as_given(path: Path | str) -> str:
    """A path, or the URL as it was written: `Path` makes one slash of two."""
    url = URL.fullmatch(str(path))
    if url is None:
        return str(path)
    return f"{url[1]}:{'///' if url[1] == 'file' else '//'}{url[2]}"


def check_local(path: Path, what: str) -> None:
    """UserError: the path to write is what `Path` leaves of a URL (s3:/bucket/x)."""
    if URL.fullmatch(str(path)):
        raise UserError(
            f"{what} {as_given(path)} is a URL, and only a path on this machine can be written. Write one, and copy what is "
            "there afterwards."
        )


def check_here(path: Path | str, what: str, remedy: str) -> None:
    """UserError: a path to read is that of a URL, and nothing on this machine has such a name. what: the words before it."""
    if URL.fullmatch(str(path)) and not os.path.lexists(path):
        raise UserError(
            f"{what}{as_given(path)} is a URL, and this is read on this machine alone. Copy it to this machine, and {remedy}"
        )
