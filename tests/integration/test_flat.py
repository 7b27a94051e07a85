"""Memory, descriptors and threads of a long run stay where they were: also with workers, saves in the background, MLflow."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from integration import tiny

SETTLED = (
    0.3  # share of a run after which nothing may grow: imports, caches and the allocator's arenas are filled
)
MIB, DESCRIPTORS, THREADS = 24, 3, 2  # that a later sample may have more: allocators and sockets come and go
EVERY_S = 0.2


class Sample(NamedTuple):
    """A run with all its processes at one moment."""

    step: int
    mib: float
    descriptors: int
    threads: int


def grown(samples: list[Sample], steps: int) -> str | None:
    """What grows over the settled part of a run's training: its last third beside its first; None when it is flat. The page that is
    written after the last step imports a plotting library, some 50 MiB."""
    settled = [sample for sample in samples if SETTLED * steps <= sample.step < steps]
    third = len(settled) // 3
    assert third >= 5, f"only {len(settled)} samples"
    early, late = settled[:third], settled[-third:]
    for name, allowed in (("mib", MIB), ("descriptors", DESCRIPTORS), ("threads", THREADS)):
        before, after = (max(getattr(sample, name) for sample in part) for part in (early, late))
        if after > before + allowed:
            return f"{name} grew from {before:.1f} to {after:.1f}"
    return None


def watched(process: subprocess.Popen[str], folder: Path) -> list[Sample]:
    """Samples until the command ends."""
    samples, parent = [], psutil.Process(process.pid)
    while process.poll() is None:
        time.sleep(EVERY_S)
        with contextlib.suppress(psutil.Error):  # a worker that has just ended
            family = [parent, *parent.children(recursive=True)]
            mib = sum(each.memory_info().rss for each in family) / 2**20
            counts = [(each.num_fds(), each.num_threads()) for each in family]
            samples.append(Sample(_step(folder), mib, *map(sum, zip(*counts, strict=True))))
    return samples


def _step(folder: Path) -> int:
    """Of the last whole line, which is near the end of the file."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().split(b"\n")[1:-1]
    return int(json.loads(lines[-1])["step"]) if lines else 0


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(server.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for each in taken:
            each.close()


def train(made: tiny.Tiny, steps: int, uri: str, *overrides: str) -> list[Sample]:
    """A run with a worker, saves in the background and MLflow at `uri`."""
    run = made.folder / "run"
    cadence = ("train.batch=2", f"train.steps={steps}", "evaluate.every=500", "checkpoint.every=200")
    beside = ("checkpoint.background=true", "data.workers=1", "data.trace=false", "track.mlflow=true")
    arguments = tiny.command("unsee", 1, made.config, f"run.dir={run}", *cadence, *beside, *overrides)
    # a bounded wait and few tries: those of MLflow's client would outlive the run
    known = {
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "2",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    }
    with (made.folder / "said").open("w") as output:
        process = subprocess.Popen(
            arguments,
            cwd=tiny.REPOSITORY,
            env=tiny.environment(**known),
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
        try:
            samples = watched(process, run)
        finally:
            if process.poll() is None:
                tiny.kill(process)
    assert process.returncode == 0, (made.folder / "said").read_text()[-3000:]
    return samples


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_20000_steps_beside_a_server_that_never_answers(tmp_path: Path) -> None:
    with silent_server() as uri:
        samples = train(tiny.make(tmp_path, sentences=2000), 20_000, uri)
    print(f"{samples[len(samples) // 3]} ... {samples[-1]}")
    assert grown(samples, 20_000) is None


@pytest.mark.slow
def test_3000_steps_that_are_sent_to_mlflow(tmp_path: Path) -> None:
    samples = train(tiny.make(tmp_path, sentences=2000), 3_000, f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert grown(samples, 3_000) is None


def run_of(**per_step: float) -> list[Sample]:
    """Samples of 1,000 steps that grow by so much a step."""
    return [
        Sample(step, *(base + step * per_step.get(name, 0.0) for name, base in BASE.items()))  # type: ignore[arg-type]
        for step in range(0, 1000, 10)
    ]


BASE = {"mib": 500.0, "descriptors": 17, "threads": 9}


def test_what_grows_slowly_is_found() -> None:
    assert grown(run_of(), 1000) is None
    for name, per_step in (("mib", 0.06), ("descriptors", 0.01), ("threads", 0.006)):
        assert str(grown(run_of(**{name: per_step}), 1000)).startswith(name)
