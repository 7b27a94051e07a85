"""TensorBoard has each step of metrics.jsonl once, however often a run was killed, cut back, or had none of it before."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from unsee_dist.tracking import tensorboard_sink
from unsee_dist.tracking.recorder import RunRecorder
from unsee_dist.tracking.tensorboard_sink import EVENTS, FOLDER

STEPS = 20


def train(run: Path, first: int, last: int, tensorboard: bool = True, close: bool = True) -> RunRecorder:
    recorder = RunRecorder(run, 0, steps=STEPS, first=first, every=1, console_every=10)
    if tensorboard:
        recorder.write_tensorboard()
    if first == 0:
        recorder.evaluation({"step": 0, "dev/sts": 50.0}, False)
    for step in range(first + 1, last + 1):
        recorder.step({"step": step, "loss": 1.0 / step, "skipped": float("nan")})
    if close:
        recorder.close()
    return recorder


def written(run: Path, tag: str) -> list[int]:
    """The steps of a tag in all event files as they are: nothing is purged by the reader."""
    events = (
        event for file in sorted((run / FOLDER).glob(EVENTS)) for event in EventFileLoader(str(file)).Load()
    )
    return [event.step for event in events for value in event.summary.value if value.tag == tag]


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_run_is_there_with_its_values_and_times(tmp_path: Path) -> None:
    train(tmp_path, 0, STEPS)
    assert written(tmp_path, "loss") == list(range(1, STEPS + 1))
    read = EventAccumulator(str(tmp_path / FOLDER)).Reload()
    assert set(read.Tags()["scalars"]) == {"loss", "dev/sts"}  # what is not finite has no point
    assert read.Scalars("loss")[3].value == pytest.approx(0.25)
    assert abs(read.Scalars("loss")[3].wall_time - time.time()) < 600


@pytest.mark.parametrize("resumed_from", [0, 5, 13])
def test_a_resumed_run_has_no_step_twice(tmp_path: Path, resumed_from: int) -> None:
    train(tmp_path, 0, 13)
    train(tmp_path, resumed_from, STEPS)
    assert written(tmp_path, "loss") == list(range(1, STEPS + 1))


def test_a_run_that_had_no_tensorboard_before_is_there_from_its_first_step(tmp_path: Path) -> None:
    train(tmp_path, 0, 10, tensorboard=False)
    assert not (tmp_path / FOLDER).exists()
    train(tmp_path, 10, STEPS)
    assert written(tmp_path, "loss") == list(range(1, STEPS + 1))


def test_a_return_to_a_checkpoint_and_who_looks_on_forget_the_steps_after_it(tmp_path: Path) -> None:
    recorder = train(tmp_path, 0, 13, close=False)
    recorder.flush()
    watching = EventAccumulator(str(tmp_path / FOLDER))
    until(lambda: (tmp_path / FOLDER).exists() and written(tmp_path, "loss") == list(range(1, 14)))
    assert len(watching.Reload().Scalars("loss")) == 13
    time.sleep(1.1)  # a reader takes files by their names, which begin with the second
    recorder.rewind(5)
    for step in range(9, STEPS + 1):
        recorder.step({"step": step, "loss": 2.0})
    recorder.close()
    expected = [*range(1, 6), *range(9, STEPS + 1)]
    assert written(tmp_path, "loss") == expected
    for reader in (watching, EventAccumulator(str(tmp_path / FOLDER))):
        assert [point.step for point in reader.Reload().Scalars("loss")] == expected


def test_a_folder_that_cannot_be_written_is_said_once_and_the_run_goes_on(tmp_path: Path, capsys) -> None:
    (tmp_path / FOLDER).write_text("a file")
    train(tmp_path, 0, STEPS)
    assert capsys.readouterr().err.count(f"{tmp_path / FOLDER} cannot be written") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == STEPS + 1


def test_without_the_package_a_run_says_what_to_install(tmp_path: Path, capsys, monkeypatch) -> None:
    from unsee_dist.tracking import recorder

    monkeypatch.setattr(recorder, "find_spec", lambda _name: None)
    train(tmp_path, 0, 2)
    assert 'pip install "unsee_dist[tensorboard]"' in capsys.readouterr().err


def test_a_bug_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[int] = []

    def planted(_: object) -> None:
        tried.append(1)
        raise KeyError("planted")

    monkeypatch.setattr(tensorboard_sink, "EVERY_S", 0.01)
    monkeypatch.setattr(tensorboard_sink, "is_our_bug", lambda _: True)
    monkeypatch.setattr(tensorboard_sink.TensorboardSink, "_write", planted)
    sink = tensorboard_sink.TensorboardSink(tmp_path, lambda _: None)
    until(lambda: len(tried) > 3)
    sink.close()
    assert capsys.readouterr().err.count("KeyError: 'planted'") == 1
