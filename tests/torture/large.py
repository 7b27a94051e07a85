"""Many inputs and large ones: 100,000 small files, and a file of 50 GB, prepared at 1,024 descriptors.

    python tests/torture/large.py [--files 100000] [--gigabytes 50] [--processes 2] [--folder F]

(make large). The inputs are written by a rule, with some sentences twice. Every sentence must be kept once and every copy
counted. Time, and the largest memory and number of descriptors of any process are printed, and bounded: they must not grow
with the inputs. 0 leaves a part out. The disk needs three times the gigabytes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from epoch import Tell, peak_mib, sentences  # noqa: E402
from integration import tiny  # noqa: E402
from rich.console import Console  # noqa: E402

DESCRIPTORS = 1024
BOUND_MIB = 1024  # of any process
LINES = 20  # of a small file
ROUND_LINES = 100_000  # of a part of the large file
ROUND = b"@@@@@@"  # in every line: the number of its part
TWICE = 10  # every tenth small file, and one part of the large one, has the sentences of another


def write_files(folder: Path, count: int) -> tuple[int, int]:
    """Small files, a thousand a folder. Returns how many lines they have, and how many different ones."""
    source, last = sentences(), ""
    for number in range(count):
        if not number % 1000:
            (folder / f"{number // 1000:04d}").mkdir(parents=True)
        if number % TWICE or not number:
            last = "\n".join(itertools.islice(source, LINES)) + "\n"
        (folder / f"{number // 1000:04d}" / f"{number:06d}.txt").write_text(last, encoding="utf-8")
    return count * LINES, (count - (count - 1) // TWICE) * LINES


def write_large(folder: Path, size: int) -> tuple[int, int]:
    """A file of about so many bytes. Returns how many lines it has, and how many different ones."""
    folder.mkdir(parents=True)
    lines = itertools.islice(sentences(), ROUND_LINES)
    part = b"".join(line.encode() + b" in round " + ROUND + b"\n" for line in lines)
    rounds = max(size // len(part), 2)
    with (folder / "large.txt").open("wb") as file:
        for number in [*range(rounds), 0]:
            file.write(part.replace(ROUND, b"%06d" % number))
    return (rounds + 1) * ROUND_LINES, rounds * ROUND_LINES


def prepare(inputs: Path, out: Path, processes: int) -> tuple[int, int]:
    """Returns the peak MiB of the largest process, and the most descriptors of any."""
    told = ["prepare", str(inputs), "--out", str(out), "--processes", str(processes)]
    started = tiny.start([sys.executable, "-m", "unsee_dist", *told])
    memory = opened = 0
    while started.poll() is None:
        memory, opened = max(memory, peak_mib(started.pid)), max(opened, most_descriptors(started.pid))
        time.sleep(0.5)
    done = tiny.finish(started)
    assert done.returncode == 0, done.stderr
    return memory, opened


def most_descriptors(pid: int) -> int:
    """Of a process and all it started; 0 when it is gone."""
    try:
        parent = psutil.Process(pid)
        return max(each.num_fds() for each in (parent, *parent.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def run(name: str, folder: Path, written: tuple[int, int], processes: int, tell: Tell) -> None:
    """Prepare what was written into folder/in, and check what is kept."""
    lines, different = written
    begun = time.monotonic()
    memory, opened = prepare(folder / "in", folder / "out", processes)
    took = time.monotonic() - begun
    index = json.loads((folder / "out" / "index.json").read_bytes())
    counters = index["preparation"]["counters"]
    found = counters["read"], index["sentences"], counters["duplicate"]
    assert found == (lines, different, lines - different), (found, lines, different)
    size = sum(shard["bytes"] for shard in index["shards"])
    tell(
        f"{name}: {lines:,} sentences, {different:,} different, {size / 1e9:,.2f} GB in {len(index['shards']):,} shards: "
        f"{took:.0f} s, {lines / took:,.0f} sentences/s; largest process {memory:,} MiB, {opened} descriptors"
    )
    assert memory <= BOUND_MIB, f"more than {BOUND_MIB:,} MiB"
    shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--gigabytes", type=float, default=50)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--folder", type=Path, help="On a disk with three times the gigabytes. Absent: a temporary one."
    )
    chosen = parser.parse_args()
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS)
    )  # of this process and all it starts
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        folder = Path(place)
        if chosen.files:
            written = write_files(folder / "small" / "in", chosen.files)
            run(f"{chosen.files:,} files", folder / "small", written, chosen.processes, console.print)
        if chosen.gigabytes:
            written = write_large(folder / "large" / "in", int(chosen.gigabytes * 1e9))
            run(f"{chosen.gigabytes:g} GB", folder / "large", written, chosen.processes, console.print)


if __name__ == "__main__":
    main()
