"""Whether another process of this machine has ended: seen at once, where a missing status may only be late."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

BOOT, NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")


class Process(NamedTuple):
    """A process: numbers are given again, so its start belongs to its name. machine: "" where /proc does not tell."""

    machine: str
    pid: int
    started: str  # clock ticks after boot


def own_process() -> Process:
    machine = ""
    with suppress(OSError):
        machine = f"{BOOT.read_text().strip()} {NAMESPACE.readlink()}"
    return Process(machine, os.getpid(), _stat(os.getpid())[1])


def has_ended(process: Process) -> bool:
    """False also where that cannot be known: on another machine, or in a container of its own."""
    if not process.machine or process.machine != own_process().machine:
        return False
    state, started = _stat(process.pid)
    return state in ("", "Z", "X") or started != process.started


def _stat(pid: int) -> tuple[str, str]:
    """State and start of a process, as in proc(5); empty when there is none. A zombie has ended: Z."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]
