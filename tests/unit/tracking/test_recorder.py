"""Rank 0 writes and prints, every rank keeps its own trace, and a resumed rank cuts its files back."""

import json
import sys

import pytest

from unsee_dist.tracking.mlflow_run import RunDescription
from unsee_dist.tracking.recorder import RunRecorder


def _steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def _run(folder, rank, first, last, every=1):
    recorder = RunRecorder(folder, rank, steps=20, first=first, every=every, console_every=10)
    recorder.keep_trace(1)
    if first == 0:
        recorder.evaluation({"step": 0, "dev/sts": 50.0}, True)
    for step in range(first + 1, last + 1):
        recorder.trace(step, (2 * step + rank,))
        recorder.step({"step": step, "loss": 1.0})
    recorder.close()


@pytest.mark.parametrize("resumed_from", [0, 5, 12])
def test_a_killed_and_resumed_run_leaves_the_history_of_one_run(tmp_path, resumed_from, capsys):
    for rank in (0, 1):
        _run(tmp_path, rank, 0, 13)
        _run(tmp_path, rank, resumed_from, 20)
    assert _steps(tmp_path / "metrics.jsonl") == list(range(21))
    for rank in (0, 1):
        path = tmp_path / "trace" / f"rank-{rank}.jsonl"
        assert [json.loads(line) for line in path.read_text().splitlines()] == [
            {"step": step, "ids": [2 * step + rank]} for step in range(1, 21)
        ]
    assert "step 20/20" in capsys.readouterr().err


def test_lines_are_written_every_so_often_and_at_the_end(tmp_path):
    _run(tmp_path, 0, 0, 20, every=7)
    assert _steps(tmp_path / "metrics.jsonl") == [0, 7, 14, 20]


def test_other_ranks_write_nothing_but_their_trace_and_print_nothing(tmp_path, capsys):
    _run(tmp_path, 3, 0, 20)
    assert sorted(path.name for path in tmp_path.rglob("*.jsonl")) == ["rank-3.jsonl"]
    assert capsys.readouterr().err == ""


def test_without_mlflow_a_run_is_recorded_and_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    recorder = RunRecorder(tmp_path, 0, steps=2, first=0, every=1, console_every=1)
    recorder.send_to_mlflow(RunDescription("unsee", "mine", {}), None)
    recorder.step({"step": 2, "loss": 1.0})
    recorder.close()
    printed = capsys.readouterr().err
    assert printed.count("mlflow is not installed") == 1
    assert 'pip install "unsee_dist[mlflow]"' in printed
    assert not (tmp_path / "mlflow.json").exists()
    assert (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize(("lost", "warned"), [(0, False), (1, True), (13, True)])
def test_lines_that_a_checkpoint_had_counted_and_that_are_gone_are_said(tmp_path, capsys, lost, warned):
    _run(tmp_path, 0, 0, 12)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: 13 - lost]))
    capsys.readouterr()
    recorder = RunRecorder(tmp_path, 0, steps=20, first=12, every=1, console_every=10)
    recorder.expect(13)
    assert recorder.lines == 13 - lost
    recorder.close()
    sentence = f"metrics.jsonl has lost {lost} of the 13 lines that the checkpoint of step 12 had counted"
    assert (sentence in capsys.readouterr().err) == warned
