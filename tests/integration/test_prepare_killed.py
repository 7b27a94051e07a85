"""A preparation is a function of inputs and settings: not of processes, and not of how often it was killed."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from integration import tiny as making

# Small pieces, so that some thousand sentences are many runs, ranges and shards.
SCRIPT = """
import sys
from unsee_dist.data import gather, opening, prepare
prepare.PIECE_BYTES, opening.CHUNK_BYTES, gather.RANGE = (40_000, 40_000), 10_000, 3000
if __name__ == "__main__":
    settings = prepare.PrepareSettings(seed=3, shard_sentences=2048, dev=50)
    prepare.prepare([sys.argv[1]], sys.argv[2], settings, processes=int(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30,000 lines of 20,000 sentences."""
    path = tmp_path_factory.mktemp("text") / "t.txt"
    lines = making.corpus(20_000)
    random.Random(1).shuffle(lines)
    path.write_text("\n".join(lines + lines[:10_000]) + "\n")
    return path


@pytest.fixture(scope="module")
def whole(text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """The bytes of a preparation by one process that nobody disturbed, and the seconds it took."""
    out, started = tmp_path_factory.mktemp("whole") / "out", time.monotonic()
    ended, told = finish(start(text, out, 1))
    assert ended == 0, told
    return contents(out), time.monotonic() - started


def start(text: Path, out: Path, processes: int, **more: object) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", SCRIPT, str(text), str(out), str(processes)]
    return subprocess.Popen(
        arguments, env=making.environment(), stderr=subprocess.PIPE, text=True, start_new_session=True, **more
    )  # type: ignore[call-overload,no-any-return]


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    told = process.communicate(timeout=120)[1]
    return process.returncode, told


def contents(folder: Path) -> dict[str, bytes]:
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


@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_writes_the_same_bytes(
    text: Path, whole: tuple[dict[str, bytes], float], tmp_path: Path, processes: int
) -> None:
    ended, told = finish(start(text, tmp_path / "out", processes))
    assert ended == 0, told
    assert contents(tmp_path / "out") == whole[0]
    counters = json.loads(whole[0]["index.json"])["preparation"]["counters"]
    assert counters["read"] == 30_000
    assert counters["duplicate"] > 9900


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_instants_and_run_again_it_writes_the_same_bytes(
    text: Path, whole: tuple[dict[str, bytes], float], tmp_path: Path, kills: int
) -> None:
    draw, bytes_of_whole, seconds = random.Random(kills), *whole
    done, folder, halfway = 0, 0, 0
    while done < kills:
        out = tmp_path / f"out-{folder}"
        process = start(text, out, 1 + done % 2)
        time.sleep(draw.uniform(0.3, 1.0) * seconds)
        if process.poll() is None:
            kill(process, alone=done % 3 == 0)
            done += 1
            halfway += any((out / "preparing").glob("run-*"))
        else:
            folder += 1
    for out in tmp_path.iterdir():
        ended, told = finish(start(text, out, 2))
        assert ended == 0, told
        assert contents(out) == bytes_of_whole
    assert halfway >= kills // 3  # the kills met work under way, not the imports


def test_a_full_disk_is_a_sentence_and_the_rerun_goes_on(
    text: Path, whole: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    """A limit on the size of files, below that of the index and above that of runs and shards."""
    biggest = max(len(data) for name, data in whole[0].items() if name.startswith("shard"))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (biggest - 1, biggest - 1))

    out = tmp_path / "out"
    ended, told = finish(start(text, out, 1, preexec_fn=limit))
    assert ended == 1
    last = told.strip().splitlines()[-1]
    assert "cannot be written (File too large). Make room and run it again: it continues" in last
    done = {
        file.name: file.stat().st_mtime_ns for file in (out / "preparing").iterdir() if file.name[:3] == "run"
    }
    assert len(done) > 10
    process = start(text, out, 1)
    seen: set[str] = set()
    while process.poll() is None:
        for file in (out / "preparing").glob("run-*"):
            try:
                seen.add(f"{file.name} {file.stat().st_mtime_ns}")
            except FileNotFoundError:
                break
    assert finish(process)[0] == 0
    assert seen == {f"{name} {at}" for name, at in done.items()}
    assert contents(out) == whole[0]
