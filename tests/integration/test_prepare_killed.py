"""A preparation is a function of inputs and settings: not of processes, and not of how often it was killed."""

import contextlib
import json
import random
import resource
import subprocess
import time
from pathlib import Path

import pytest
from integration.preparing import contents, finish, kill, start, write_text


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "t.txt")


@pytest.fixture(scope="module")
def whole(text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """The bytes of a preparation by one process that nobody disturbed, and the seconds of its work."""
    out = tmp_path_factory.mktemp("whole") / "out"
    process = start(text, out, 1)
    wait_for_work(process, out)
    began = time.monotonic()
    ended, errors = finish(process)
    assert ended == 0, errors
    return contents(out), time.monotonic() - began


def wait_for_work(process: subprocess.Popen[str], out: Path) -> None:
    """Until the imports are over, however long a busy machine takes for them, or the process has ended."""
    while process.poll() is None and not (out / "preparing").is_dir():
        time.sleep(0.01)


@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_writes_the_same_bytes(
    text: Path, whole: tuple[dict[str, bytes], float], tmp_path: Path, processes: int
) -> None:
    ended, errors = finish(start(text, tmp_path / "out", processes))
    assert ended == 0, errors
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
        wait_for_work(process, out)
        time.sleep(draw.uniform(0, 1) * seconds)
        if process.poll() is None:
            kill(process, alone=done % 3 == 0)
            done += 1
            halfway += any((out / "preparing").glob("run-*"))
        else:
            folder += 1
    for out in tmp_path.iterdir():
        ended, errors = finish(start(text, out, 2))
        assert ended == 0, errors
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
    ended, errors = finish(start(text, out, 1, fan_in=256, preexec_fn=limit))
    assert ended == 1
    last = errors.strip().splitlines()[-1]
    assert (
        "cannot be written (File too large). Make room and write the same command again: it continues" in last
    )
    done = {
        file.name: file.stat().st_mtime_ns for file in (out / "preparing").iterdir() if file.name[:3] == "run"
    }
    assert len(done) > 10
    process = start(text, out, 1, fan_in=256)
    seen: set[str] = set()
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):  # the folder goes away at the end, file by file
            for file in (out / "preparing").glob("run-*"):
                seen.add(f"{file.name} {file.stat().st_mtime_ns}")
    assert finish(process)[0] == 0
    assert seen == {f"{name} {at}" for name, at in done.items()}
    assert contents(out) == whole[0]
