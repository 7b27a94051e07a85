"""Many inputs and large ones: 100,000 small files, and 50 GB of text, prepared at 1,024 descriptors.

    python tests/torture/large.py [--files 100000] [--gigabytes 50] [--processes 2] [--folder F]

(make large). The inputs are written by a rule, with some sentences twice. Every sentence must be kept once and every copy
counted. Time, the largest memory and number of descriptors of any process, and the most that the disk held are printed, and
bounded: memory and descriptors must not grow with the inputs. 0 leaves a part out.

The text is in .zst files, the first of 5 GB of text, and so are the shards (--zst): the disk needs half the gigabytes.
The same command with the same --folder goes on where a killed one was.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psutil
import zstandard

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from epoch import Tell, peak_mib, sentences  # noqa: E402  (after sys.path)
from integration import tiny  # noqa: E402  (after sys.path)
from rich.console import Console  # noqa: E402  (after sys.path)

DESCRIPTORS = 1024
BOUND_MIB = 1024  # of any process
DISK = 0.5  # bytes on disk for a byte of text: inputs, unfinished work and shards together
LINES = 20  # of a small file
ROUND_LINES = 100_000  # of a part of the text
ROUND = b"@@@@@@"  # in every line: the number of its part
FIRST_BYTES, OTHER_BYTES = 5 * 10**9, 10**9  # of text, of the first large file and of the others
TWICE = 10  # every tenth small file, and one part of the text, has the sentences of another


class Peaks(NamedTuple):
    """The most MiB and descriptors of any process, and the most bytes on disk in the folder that it writes."""

    memory: int = 0
    descriptors: int = 0
    disk: int = 0


def write_files(folder: Path, count: int) -> tuple[int, int]:
    """Small files, a thousand a folder. Returns how many lines they have, and how many different ones."""
    source, last, partial = sentences(), "", folder.with_name("partial")
    if not folder.exists():
        shutil.rmtree(partial, ignore_errors=True)
        for number in range(count):
            if not number % 1000:
                (partial / f"{number // 1000:04d}").mkdir(parents=True)
            if number % TWICE or not number:
                last = "\n".join(itertools.islice(source, LINES)) + "\n"
            (partial / f"{number // 1000:04d}" / f"{number:06d}.txt").write_text(last, encoding="utf-8")
        partial.rename(folder)
    return count * LINES, (count - (count - 1) // TWICE) * LINES


def write_large(folder: Path, size: int) -> tuple[int, int]:
    """Files of about so many bytes of text. Returns how many lines they have, and how many different ones."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = itertools.islice(sentences(), ROUND_LINES)
    part = b"".join(line.encode() + b" in round " + ROUND + b"\n" for line in lines)
    rounds = max(size // len(part), 2)
    numbers = [*range(rounds), 0]
    starts = [0, *range(FIRST_BYTES // len(part), len(numbers), OTHER_BYTES // len(part))]
    for file, (start, stop) in enumerate(pairwise([*starts, len(numbers)])):
        parts = (part.replace(ROUND, b"%06d" % number) for number in numbers[start:stop])
        write_packed(folder / f"{file:03d}.txt.zst", parts)
    return len(numbers) * ROUND_LINES, rounds * ROUND_LINES


def write_packed(path: Path, parts: Iterable[bytes]) -> None:
    """A compressed file, unless it is there."""
    if path.exists():
        return
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        with zstandard.ZstdCompressor(1).stream_writer(file, closefd=False) as packed:
            for part in parts:
                packed.write(part)
        os.fsync(file.fileno())
    partial.rename(path)


def prepare(inputs: Path, out: Path, processes: int) -> Peaks:
    arguments = ["prepare", str(inputs), "--out", str(out), "--zst", "--processes", str(processes)]
    started, peaks = tiny.start([sys.executable, "-m", "unsee_dist", *arguments]), Peaks()
    try:
        while started.poll() is None:
            now = Peaks(peak_mib(started.pid), most_descriptors(started.pid), bytes_on_disk(out))
            peaks = Peaks(*map(max, peaks, now))
            time.sleep(0.5)
    except KeyboardInterrupt:
        tiny.kill(started)
        raise
    done = tiny.finish(started)
    assert done.returncode == 0, done.stderr
    return peaks


def bytes_on_disk(folder: Path) -> int:
    """Of all files below."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # renamed or removed meanwhile
                total += 512 * os.stat(os.path.join(place, name)).st_blocks
    return total


def most_descriptors(pid: int) -> int:
    """Of a process and all it started; 0 when it is gone."""
    try:
        parent = psutil.Process(pid)
        return max(each.num_fds() for each in (parent, *parent.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def run(name: str, folder: Path, written: tuple[int, int], processes: int, tell: Tell) -> int:
    """Prepare what was written into folder/in, and check what is kept. Returns the bytes on disk, of inputs and all."""
    lines, different = written
    inputs, again = bytes_on_disk(folder / "in"), ", continued" if (folder / "out").exists() else ""
    begun = time.monotonic()
    peaks = prepare(folder / "in", folder / "out", processes)
    took = time.monotonic() - begun
    index = json.loads((folder / "out" / "index.json").read_bytes())
    counters = index["preparation"]["counters"]
    counted = counters["read"], index["sentences"], counters["duplicate"]
    assert counted == (lines, different, lines - different), (counted, lines, different)
    size = sum(shard["bytes"] for shard in index["shards"])
    tell(
        f"{name}: {lines:,} sentences, {different:,} different, {size / 1e9:,.2f} GB in {len(index['shards']):,} shards: "
        f"{took:.0f} s{again}, {lines / took:,.0f} sentences/s; largest process {peaks.memory:,} MiB, {peaks.descriptors} "
        f"descriptors; disk {inputs / 1e9:,.2f} GB of inputs and {peaks.disk / 1e9:,.2f} GB at most of work and shards"
    )
    assert peaks.memory <= BOUND_MIB, f"more than {BOUND_MIB:,} MiB"
    shutil.rmtree(folder)
    return inputs + peaks.disk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--gigabytes", type=float, default=50)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="Kept when this is killed. Absent: a temporary one.")
    options = parser.parse_args()
    # of this process and all it starts
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    kept = contextlib.nullcontext(str(options.folder)) if options.folder else tempfile.TemporaryDirectory()
    with kept as place:
        if options.files:
            folder = Path(place, f"files-{options.files}")
            written = write_files(folder / "in", options.files)
            run(f"{options.files:,} files", folder, written, options.processes, console.print)
        if options.gigabytes:
            folder = Path(place, f"gigabytes-{options.gigabytes:g}")
            written = write_large(folder / "in", int(options.gigabytes * 1e9))
            used = run(f"{options.gigabytes:g} GB", folder, written, options.processes, console.print)
            assert used <= DISK * options.gigabytes * 1e9, f"more disk than {DISK} of the text"


if __name__ == "__main__":
    main()
