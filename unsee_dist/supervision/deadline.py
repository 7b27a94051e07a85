"""The end of a process whose main thread holds Python's lock, as a call that hangs in a driver does: no thread of Python runs.

`faulthandler` prints the stacks without the lock, but can only exit with code 1, which is that of a bug. So a timer of
the C library (timer_create(2) with SIGEV_THREAD) calls `_exit` itself, in a thread that knows nothing of Python. Linux on 64
bits; elsewhere it is faulthandler's exit.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import sys
import time
from ctypes import POINTER, Structure, byref, c_byte, c_int, c_long, c_size_t, c_void_p

SIGEV_THREAD = 2
STDERR = 2
DUMP_S = 5.0  # the stacks are printed this long before the end


class _Event(Structure):
    """struct sigevent of Linux on 64 bits."""

    _fields_ = (
        ("value", c_size_t),
        ("signal", c_int),
        ("notify", c_int),
        ("function", c_void_p),
        ("attributes", c_void_p),
        ("unused", c_byte * 32),
    )


class _Times(Structure):
    """struct itimerspec: again after, first after, each in seconds and nanoseconds. Zeros: never."""

    _fields_ = (("again_s", c_long), ("again_ns", c_long), ("first_s", c_long), ("first_ns", c_long))


class Deadline:
    """Prints the stacks of all threads and exits with `code`, unless the deadline is set again in time."""

    def __init__(self, code: int) -> None:
        self._timer: c_void_p | None = None
        if sys.platform != "linux" or sys.maxsize < 2**32:
            return
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.timer_create.argtypes = [c_int, POINTER(_Event), POINTER(c_void_p)]
        self._libc.timer_settime.argtypes = [c_void_p, c_int, POINTER(_Times), c_void_p]
        exit_now = ctypes.cast(self._libc._exit, c_void_p).value
        event = _Event(value=code, notify=SIGEV_THREAD, function=exit_now)
        self._timer = c_void_p()
        self._succeed(self._libc.timer_create(time.CLOCK_MONOTONIC, byref(event), byref(self._timer)))

    def set(self, seconds: float) -> None:
        """The process ends `seconds` from now; the deadline before is dropped."""
        alone = self._timer is None
        dump_s = seconds if alone else max(seconds - DUMP_S, seconds / 2)
        faulthandler.dump_traceback_later(dump_s, exit=alone, file=STDERR)  # sys.stderr may be no file
        self._set(seconds)

    def cancel(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._set(0)

    def _set(self, seconds: float) -> None:
        if self._timer is None:
            return
        whole = int(seconds)
        times = _Times(first_s=whole, first_ns=int((seconds - whole) * 1e9))
        self._succeed(self._libc.timer_settime(self._timer, 0, byref(times), None))

    def _succeed(self, result: int) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), f"timer: {os.strerror(ctypes.get_errno())}")
