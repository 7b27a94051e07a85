"""Runs with parallel.compile: the eager run to rounding, few graphs over many steps, killed and resumed bit for bit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from integration import ranks
from integration import tiny as launch
from integration.tiny import Tiny
from safetensors.torch import load_file

from unsee_dist.errors import ExitCode

STEPS = 40
# dropout on; sentences of 10 and 14 word pieces share rows of 32
SETTINGS = (
    "model.dropout=0.1",
    "model.max_tokens=32",
    "train.batch=24",
    f"train.steps={STEPS}",
    "evaluate.every=20",
    "checkpoint.every=20",
    "parallel.zero=0",
    "parallel.compile=true",
)


def graphs(said: str) -> list[str]:
    """The network and rows of each graph that the log names."""
    return re.findall(r"compiled the (\w+ encoder for \d+ rows)", said)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Inductor's cache of these tests: what one has compiled, the next one reads."""
    return {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path_factory.mktemp("inductor"))}


@pytest.fixture(scope="module")
def through(tiny: Tiny, cache: dict[str, str]) -> tuple[Path, str]:
    """The compiled run that nothing stopped, and what it said."""
    folder = tiny.folder / "compiled"
    started = ranks.start(1, tiny.config, *SETTINGS, f"run.dir={folder}", **cache)
    started.succeed(900)
    return folder, started.text()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_forty_steps_compile_once_for_each_number_of_rows(tiny: Tiny, through: tuple[Path, str]) -> None:
    folder, said = through
    made = graphs(said)
    assert len(made) == len(set(made))  # none again
    rows = {name.split(" for ")[1] for name in made}
    assert 2 <= len(rows) <= 4
    assert len(made) == 2 * len(rows)  # two networks
    assert f"compiled {len(made)} graphs of {len(rows)} shapes" in said
    assert "again" not in said
    eager = tiny.folder / "eager"
    ranks.start(1, tiny.config, *SETTINGS, "parallel.compile=false", f"run.dir={eager}").succeed()
    ours, theirs = launch.losses(folder), launch.losses(eager)
    assert ours.keys() == theirs.keys() == set(range(1, STEPS + 1))
    assert max(abs(ours[step] / theirs[step] - 1) for step in range(1, 11)) < 1e-5
    weights, plain = (load_file(run / "final" / "model.safetensors") for run in (folder, eager))
    assert weights.keys() == plain.keys()  # no trace of the compiler in an export
    names = [_names(run) for run in (folder, eager)]
    assert names[0] == names[1]  # nor in a checkpoint


def _names(run: Path) -> list[str]:
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    return sorted(name for path in newest.glob("*.safetensors") for name in load_file(path))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_and_resumed_run_is_the_run_never_killed(
    tiny: Tiny, through: tuple[Path, str], cache: dict[str, str]
) -> None:
    folder = tiny.folder / "compiled-killed"
    settings = (*SETTINGS, f"run.dir={folder}")
    killed = ranks.start(1, tiny.config, *settings, UNSEE_KILL_AT="backward 27 0", **cache)
    assert killed.wait(900) == [-9]
    ranks.start(1, tiny.config, *settings, **cache).succeed(900)
    assert _left(folder) == _left(through[0])


def _left(folder: Path) -> tuple[bytes, list[object], object, object]:
    """The encoder, the last checkpoint's digests, metrics and trace."""
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    files = json.loads((newest / "manifest.json").read_text())["files"]
    weights = (folder / "final" / "model.safetensors").read_bytes()
    return weights, [file["xxh3"] for file in files], launch.history(folder), launch.traced(folder)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_eager_run_goes_on_compiled(tiny: Tiny, cache: dict[str, str]) -> None:
    """It is a setting that may change: the layout of a run, not its result."""
    folder = tiny.folder / "compiled-later"
    settings = (*SETTINGS, f"run.dir={folder}")
    stopped = ranks.start(
        1, tiny.config, *settings, "parallel.compile=false", UNSEE_KILL_AT="backward 25 0 SIGTERM"
    )
    assert stopped.wait() == [ExitCode.STOPPED]
    again = ranks.start(1, tiny.config, *settings, **cache)
    again.succeed(900)
    assert "changed since the last start: parallel.compile false -> true" in again.text()
    assert graphs(again.text())


def test_without_a_compiler_a_run_ends_with_a_sentence(tiny: Tiny, tmp_path: Path) -> None:
    started = ranks.start(1, tiny.config, *SETTINGS, f"run.dir={tmp_path / 'run'}", CXX="no-such-compiler")
    assert started.wait(120) == [ExitCode.MISTAKE]
    said = started.text()
    assert "parallel.compile = true needs a C++ compiler, and torch finds none" in said
    assert "Traceback" not in said
