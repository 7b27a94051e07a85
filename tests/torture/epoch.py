"""An epoch of a large corpus, end to end: sentences written by a rule, prepared, streamed; every one exactly once.

    python tests/torture/epoch.py [--sentences 10000000] [--folder F]

(make epoch). 2 ranks x 2 workers read text and tokenise it. The largest memory of any process is printed, and bounded:
it must not grow with the corpus.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from integration import tiny  # noqa: E402  (after sys.path)
from rich.console import Console  # noqa: E402  (after sys.path)
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn  # noqa: E402  (after sys.path)

RANKS, WORKERS, BATCH = 2, 2, 1000
BOUND_MIB = 1024  # of any process, most of it torch; a byte a sentence for this test's own count is left out

Tell = Callable[[str], None]


def sentences() -> Iterator[str]:
    """16 million different ones, of some 120 bytes."""
    parts = [tiny.KINDS, tiny.THINGS, tiny.DEEDS, tiny.KINDS, tiny.THINGS, tiny.PLACES, tiny.THINGS]
    for kind, thing, deed, other, whom, place, where in itertools.product(*parts):
        yield (
            f"the {kind} {thing} {deed} a {other} {whom} {place} the {where} "
            f"without the {thing} above a {kind} {where} near the {other} {whom}"
        )


def write(path: Path, count: int) -> None:
    lines = itertools.islice(sentences(), count)
    with path.open("w", encoding="utf-8") as file:
        while part := list(itertools.islice(lines, 10_000)):
            file.write("\n".join(part) + "\n")


def read(rank: int, folder: Path, steps: int, done: multiprocessing.Queue[int]) -> None:
    """One rank's epoch. Leaves a bit a sentence, and how many were read."""
    from unsee_dist.config.sections import DataSettings, ModelSettings, RunConfig, TrainSettings
    from unsee_dist.data import Shards, Stream
    from unsee_dist.model.encoder import load_tokenizer

    corpus = Shards(folder / "shards")
    config = RunConfig(
        seed=1,
        train=TrainSettings(batch=BATCH),
        model=ModelSettings(max_tokens=32),
        data=DataSettings(workers=WORKERS),
    )
    stream = Stream(corpus, load_tokenizer(str(folder / "encoder")), config, rank, RANKS)
    seen, read = np.zeros(corpus.sentences, dtype=bool), 0
    for batch in stream.batches(1, steps):
        seen[list(batch.ids)] = True
        read += len(batch.ids)
        if rank == 0:
            done.put(batch.step)
    np.savez(folder / f"read-{rank}.npz", seen=np.packbits(seen), read=read)


def stream(folder: Path, count: int) -> int:
    """Two ranks at once. Returns the peak MiB of the largest process."""
    context = multiprocessing.get_context("spawn")
    done: multiprocessing.Queue[int] = context.Queue()
    steps = count // BATCH
    ranks = [context.Process(target=read, args=(rank, folder, steps, done)) for rank in range(RANKS)]
    for process in ranks:
        process.start()
    columns = (*Progress.get_default_columns()[:3], MofNCompleteColumn(), TimeRemainingColumn())
    peak = 0
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("batches", total=steps)
        while any(process.is_alive() for process in ranks):
            while not done.empty():
                bar.update(task, completed=done.get())
            peak = max([peak, *(peak_mib(process.pid) for process in ranks)])
            time.sleep(0.2)
    assert [process.exitcode for process in ranks] == [0] * RANKS
    reads = [np.load(folder / f"read-{rank}.npz") for rank in range(RANKS)]
    total = sum(int(each["read"]) for each in reads)
    either = np.bitwise_or.reduce([each["seen"] for each in reads])
    met = int(np.unpackbits(either, count=count).sum())
    assert (total, met) == (count, count), f"{total:,} read, {met:,} different, of {count:,}"
    return peak


def peak_mib(pid: int | None) -> int:
    """The largest peak so far of a process and all it started; 0 when it is gone."""
    peaks = [0]
    try:
        for process in (family := psutil.Process(pid), *family.children(recursive=True)):
            status = Path(f"/proc/{process.pid}/status").read_text()
            peaks += [int(kib) // 1024 for kib in re.findall(r"VmHWM:\s*(\d+)", status)]
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return max(peaks)
    return max(peaks)


def prepare(folder: Path) -> int:
    """By two processes. Returns the peak MiB of the largest."""
    arguments = ["prepare", str(folder / "text.txt"), "--out", str(folder / "shards"), "--processes", "2"]
    started, peak = tiny.start([str(tiny.BIN / "unsee"), *arguments]), 0
    while started.poll() is None:
        peak = max(peak, peak_mib(started.pid))
        time.sleep(0.2)
    assert tiny.finish(started).returncode == 0
    return peak


def run(folder: Path, count: int, tell: Tell) -> None:
    begun = time.monotonic()

    def took() -> str:
        nonlocal begun
        spent, begun = time.monotonic() - begun, time.monotonic()
        return f"{spent:.0f} s, {count / spent:,.0f} sentences/s"

    write(folder / "text.txt", count)
    size = (folder / "text.txt").stat().st_size
    tell(f"wrote {count:,} sentences, {size / 1e6:,.0f} MB: {took()}")
    tiny.write_encoder(folder / "encoder")
    preparing = prepare(folder)
    tell(f"prepared by 2 processes: {took()}; largest process {preparing:,} MiB")
    reading = stream(folder, count)
    tell(f"an epoch by {RANKS} ranks x {WORKERS} workers: {took()}; every sentence once")
    tell(f"largest process {reading:,} MiB")
    assert max(preparing, reading) <= BOUND_MIB, f"more than {BOUND_MIB:,} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=10_000_000)
    parser.add_argument(
        "--folder", type=Path, help="An empty or new one with 3 GB of room. Absent: a temporary one."
    )
    options = parser.parse_args()
    assert options.sentences % BATCH == 0, f"--sentences must be a multiple of {BATCH}"
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder or Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        run(folder, options.sentences, console.print)


if __name__ == "__main__":
    main()
