"""metrics.jsonl is valid JSON, survives kills, and is cut back to the checkpoint's step."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from unsee_dist.errors import UserError
from unsee_dist.tracking import metrics_file
from unsee_dist.tracking.metrics_file import MetricsFile, count_lines, cut_back, read


def _read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def _write(path, steps):
    file = MetricsFile(path)
    for step in steps:
        file.write({"step": step, "loss": 1 / (step + 1)})
    file.close()


def test_what_is_written_is_read_and_not_finite_is_null(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    file = MetricsFile(path)
    file.write({"step": 0, "dev/sts": float("nan"), "loss": float("inf"), "ids": [3, 1]})
    file.close()
    file.close()
    strict = json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert strict == {"step": 0, "dev/sts": None, "loss": None, "ids": [3, 1]}


def test_null_is_read_as_nan(tmp_path):
    file = MetricsFile(tmp_path / "m.jsonl")
    file.write({"step": 1, "loss": float("nan"), "dev/sts": float("-inf"), "ids": [3, 1]})
    file.close()
    (line,) = metrics_file.read(tmp_path / "m.jsonl")
    assert np.isnan([line.pop("loss"), line.pop("dev/sts")]).all()
    assert line == {"step": 1, "ids": [3, 1]}
    assert metrics_file.training_lines(tmp_path / "m.jsonl")
    assert metrics_file.evaluations(tmp_path / "m.jsonl")


def test_a_numpy_nan_is_null_too(tmp_path):
    file = MetricsFile(tmp_path / "m.jsonl")
    file.write({"step": 1, "loss": np.float64("nan")})
    file.close()
    assert _read(tmp_path / "m.jsonl") == [{"step": 1, "loss": None}]


@pytest.mark.parametrize("step", range(-1, 12))
def test_cut_back_keeps_exactly_the_history_up_to_the_step_and_appending_continues_it(tmp_path, step):
    path = tmp_path / "m.jsonl"
    _write(path, [0, *range(1, 11), 10])  # the evaluation of a step stands after its training line
    assert cut_back(path, step) == sum(s > step for s in [0, *range(1, 11), 10])
    _write(path, [step + 1])
    assert [line["step"] for line in _read(path)] == [s for s in [0, *range(1, 11), 10] if s <= step] + [
        step + 1
    ]


def test_cutting_at_every_byte_of_a_torn_file_leaves_whole_lines(tmp_path):
    path = tmp_path / "m.jsonl"
    _write(path, range(4))
    whole = path.read_bytes()
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        cut_back(path, 2)
        assert [line["step"] for line in _read(path)] == list(range(min(3, whole[:end].count(b"\n"))))


def test_damage_behind_the_step_is_cut_and_damage_before_it_is_a_sentence(tmp_path):
    path = tmp_path / "m.jsonl"
    _write(path, range(6))
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = b"\0" * 20 + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(ValueError, match="line 5 is damaged"):
        cut_back(path, 5)
    assert path.read_bytes() == b"".join(lines)
    assert cut_back(path, 3) == 2


@pytest.mark.parametrize("steps", [[1, 2, 3, 2], [1, 2, 3, 1, 2, 3], [5, 9, 4], [1, 2, 9, 3]])
@pytest.mark.parametrize("step", [2, 3, 9])
def test_steps_that_go_back_are_refused_with_the_file_and_nothing_is_cut(tmp_path, steps, step):
    path = tmp_path / "m.jsonl"
    _write(path, steps)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"m.jsonl, line \d: step \d comes after step \d"):
        cut_back(path, step)
    assert path.read_bytes() == before


@pytest.mark.parametrize("step", ["1e999", '"x"', "null", "[" * 5000 + "]" * 5000])
def test_a_step_that_is_no_number_is_damage_with_its_line(tmp_path, step):
    path = tmp_path / "m.jsonl"
    path.write_text(f'{{"step": 1}}\n{{"step": {step}}}\n{{"step": 2}}\n')
    with pytest.raises(UserError, match="line 2 is damaged"):
        cut_back(path, 2)


def test_a_missing_file_has_nothing_to_cut(tmp_path):
    assert cut_back(tmp_path / "gone.jsonl", 5) == 0


def test_flushed_lines_survive_sigkill(tmp_path):
    path = tmp_path / "m.jsonl"
    script = (
        "import os, signal, sys; from pathlib import Path; from unsee_dist.tracking.metrics_file import MetricsFile\n"
        "f = MetricsFile(Path(sys.argv[1]))\n"
        "for s in range(50): f.write({'step': s})\n"
        "f.flush(); f.write({'step': 50}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    cut_back(path, 49)
    assert [line["step"] for line in _read(path)] == list(range(50))


def test_lines_reach_the_file_at_intervals_without_a_flush(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_file, "FLUSH_S", 0)
    file = MetricsFile(tmp_path / "m.jsonl")
    file.write({"step": 1})
    assert _read(tmp_path / "m.jsonl") == [{"step": 1}]
    file.close()


@pytest.mark.parametrize("rest", [b'{"step": 0, "ti', b"{", b"\x00" * 700_000])
@pytest.mark.parametrize("whole", [b"", b'{"step":1}\n', b'{"step":1}\n{"step":2}\n'])
def test_a_torn_last_line_is_cut_off_and_said_before_another_is_appended(tmp_path, caplog, whole, rest):
    """Else the next line would be glued to it, and both be lost."""
    path = tmp_path / "m.jsonl"
    path.write_bytes(whole + rest)
    file = MetricsFile(path)
    file.write({"step": 3})
    file.close()
    assert path.read_bytes() == whole + b'{"step": 3}\n'
    assert f"{path}: its last line was never finished, and was cut off ({len(rest)} bytes)" in caplog.text


def test_a_whole_file_is_appended_to_without_a_word(tmp_path, caplog):
    path = tmp_path / "m.jsonl"
    for step in (1, 2):
        file = MetricsFile(path)
        file.write({"step": step})
        file.close()
    assert [line["step"] for line in read(path)] == [1, 2]
    assert not caplog.text


@pytest.mark.parametrize("use", [read, count_lines, lambda path: cut_back(path, 3), MetricsFile])
def test_a_pipe_in_its_place_is_a_sentence_and_not_waited_for(tmp_path, use):
    path = tmp_path / "m.jsonl"
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"m\.jsonl cannot be read \(It is not a regular file\)"):
        use(path)
