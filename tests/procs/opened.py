"""How often the files of a folder are opened, by whatever library: Linux counts (inotify). Of one rank: give it its own copy."""

from __future__ import annotations

import ctypes
import os
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IN_OPEN, IN_ISDIR, IN_NONBLOCK = 0x20, 0x40000000, os.O_NONBLOCK
HEAD = struct.Struct("iIII")  # struct inotify_event, before the name


@contextmanager
def counting(folder: Path) -> Iterator[Counter[str]]:
    """Name of a file -> how often it was opened in the block. Complete when the block has ended."""
    libc, opened = ctypes.CDLL(None, use_errno=True), Counter[str]()
    watch = libc.inotify_init1(IN_NONBLOCK)
    if watch < 0 or libc.inotify_add_watch(watch, os.fsencode(folder), IN_OPEN) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    try:
        yield opened
    finally:
        opened.update(_names(watch))
        os.close(watch)


def _names(watch: int) -> Iterator[str]:
    while True:
        try:
            events = os.read(watch, 1 << 20)
        except BlockingIOError:
            return
        while events:
            _, mask, _, length = HEAD.unpack_from(events)
            name, events = events[HEAD.size : HEAD.size + length], events[HEAD.size + length :]
            if not mask & IN_ISDIR:
                yield os.fsdecode(name.rstrip(b"\0"))
