"""Preparations of a small text in many micro_batches, as processes that can be killed, and the bytes they leave."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import psutil
from integration import tiny

# Small micro_batches, so that some thousand sentences are many runs, passes of merging, ranges and shards.
SCRIPT = """
import sys
from unsee_dist.data.prepare import merge, opening, pipeline
pipeline.SPLIT_BYTES, opening.CHUNK_BYTES, merge.RANGE, merge.FAN_IN = (40_000, 40_000), 10_000, 3000, {fan_in}
if __name__ == "__main__":
    settings = pipeline.PrepareSettings(seed=3, shard_sentences=2048, dev=50)
    how = {"engine": "ray"} if sys.argv[3] == "ray" else {"processes": int(sys.argv[3])}
    pipeline.prepare([sys.argv[1]], sys.argv[2], settings, **how)
"""


def write_text(path: Path) -> Path:
    """30,000 lines of 20,000 sentences."""
    lines = tiny.corpus(20_000)
    random.Random(1).shuffle(lines)
    path.write_text("\n".join(lines + lines[:10_000]) + "\n")
    return path


def start(text: Path, out: Path, how: int | str, fan_in: int = 4, **more: object) -> subprocess.Popen[str]:
    """how: a number of processes, or "ray". fan_in: runs merged at once."""
    arguments = [sys.executable, "-c", SCRIPT.replace("{fan_in}", str(fan_in)), str(text), str(out), str(how)]
    more = {"env": tiny.environment()} | more
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True, **more)  # type: ignore[call-overload]


def finish(process: subprocess.Popen[str], timeout_s: float = 120) -> tuple[int, str]:
    """Exit code, and what was said."""
    printed = process.communicate(timeout=timeout_s)[1]
    return process.returncode, printed


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def kill(process: subprocess.Popen[str], alone: bool) -> None:
    """SIGKILL to all its processes; or to the first alone, whose workers must then end by themselves."""
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    if not alone:
        for member in family:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
    process.wait()
    _, left = psutil.wait_procs(family, timeout=10)
    assert not left, f"still there 10 s after their parent was killed: {left}"
