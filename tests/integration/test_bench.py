"""`unsee bench` times the real step: its parts add up to the step, on a real run."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from integration import tiny as launch
from integration.tiny import Tiny
from rich.console import Console

from unsee_dist.bench import masks
from unsee_dist.bench.launch import ProcessFailed, in_processes, rows


def test_the_parts_of_a_real_step_add_up(tiny: Tiny) -> None:
    arguments = [
        "-m",
        "unsee_dist.bench.step",
        str(tiny.config),
        f"run.dir={tiny.folder / 'bench'}",
        "track.mlflow=false",
    ]
    done = launch.run([sys.executable, *arguments], timeout_s=240)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    parts = sum(ms for name, ms in row["ms"].items() if name != "step")
    assert 0.3 * row["ms"]["step"] < parts < 1.2 * row["ms"]["step"], row[
        "ms"
    ]  # medians of parts, on a busy machine
    assert all(
        row["ms"][name] > 0 for name in ("online", "target", "projector", "objective", "backward", "finish")
    )
    assert row["sentences_per_s"] > 0


@pytest.mark.slow
def test_steps_under_three_kinds_of_dropout_are_timed_by_turns(tiny: Tiny, tmp_path: Path) -> None:
    arguments = [str(tiny.config), f"run.dir={tmp_path / 'run'}", "track.mlflow=false", "train.batch=640"]
    row = in_processes("unsee_dist.bench.masks", arguments, 1, limit_s=500)
    assert (row["batch"], row["turns"]) == (640, 12)
    assert min(row["ms"].values()) > 0
    for middle, low, high in row["ratio"].values():
        assert low <= middle <= high
    table = Console(width=200)
    with table.capture() as shown:
        table.print(masks.page([row]))
    assert "640, fp32" in shown.get()


def test_the_rows_of_processes_are_what_they_print(tmp_path: Path) -> None:
    # at once: torchrun's ranks share an output without buffers, where what print writes in two pieces may be mixed
    (tmp_path / "one_row.py").write_text("import os\nos.write(1, b'{\"a\": 1}\\n')\n")
    assert list(rows("one_row", [], 2, environment={"PYTHONPATH": str(tmp_path)})) == [{"a": 1}] * 2
    with pytest.raises(ProcessFailed, match=r"json.tool .* on 1 ranks failed") as failed:
        in_processes("json.tool", [str(tmp_path / "missing")], 1)
    assert failed.value.why.startswith("exit code 2, ")
    assert "missing" in failed.value.stderr


def test_a_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    mark = tmp_path / "ended"
    sleep = f"import time; time.sleep(9); open({str(mark)!r}, 'w').close()"
    with pytest.raises(ProcessFailed, match="no line in 3 s"):
        in_processes("timeit", ["-n", "1", "-r", "1", sleep], 1, limit_s=3)
    time.sleep(8)  # the statement would have come to its end
    assert not mark.exists()
