"""A range of a run is what was written, wherever frames end; damage is a sentence; what is not asked for stays packed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unsee_dist.data.prepare import plan, runs, stages
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare
from unsee_dist.errors import UserError

Row = tuple[int, int, int, bytes]  # high, low, times, text
LARGEST = (1 << 64) - 1


def write(path: Path, parts: list[list[Row]], facts: bytes = b"{}") -> Path:
    with runs.new_run(path) as run:
        for part in parts:
            high, low, times, texts = zip(*part, strict=True) if part else ([], [], [], [])
            numbers = (np.array(column, dtype=np.uint64) for column in (high, low, times))
            run.add(*numbers, list(texts))
        run.finish(facts)
    return path


def rows_of(run: runs.SortedRun, first: int, last: int) -> list[Row]:
    rows = run.between(first, last)
    columns = (rows.high.tolist(), rows.low.tolist(), rows.times.tolist(), run.texts(rows.place))
    return list(zip(*columns, strict=True))


def hashes(highest: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.sampled_from([0, 1, LARGEST]) | st.integers(0, highest), st.integers(0, 3))


@given(
    hashed=st.sets(hashes(9) | hashes(LARGEST), max_size=40),
    data=st.data(),
    frame=st.sampled_from([1, 40, 100, 1000]),
)
@settings(deadline=None, max_examples=150)
def test_a_range_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, hashed: set[tuple[int, int]], data: st.DataObject, frame: int
) -> None:
    """Also where equal first halves are on both sides of a border, and where a sentence is larger than many frames."""
    texts = st.binary(max_size=30) | st.sampled_from([b"", b"x" * 5000])
    number = st.integers(1, LARGEST)
    rows = [(high, low, data.draw(number), data.draw(texts)) for high, low in sorted(hashed)]
    cut = data.draw(st.integers(0, len(rows)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs, "FRAME_BYTES", frame)
        path = write(tmp_path_factory.mktemp("run") / "run", [rows[:cut], rows[cut:]], b'{"a": 1}')
    ends = st.sampled_from([high for high, _ in hashed] or [0]) | st.integers(0, LARGEST)
    places = sorted(data.draw(st.sets(st.integers(0, max(len(rows) - 1, 0)), max_size=len(rows))))
    with runs.opened_run(path) as run:
        assert run.size == (len(rows), sum(len(row[3]) for row in rows))
        assert run.facts() == b'{"a": 1}'
        assert rows_of(run, 0, LARGEST) == rows
        for first, last in data.draw(st.lists(st.tuples(ends, ends), max_size=5)):
            assert rows_of(run, first, last) == [row for row in rows if first <= row[0] <= last]
        for chosen in (places, [0][: len(rows)], [len(rows) - 1][: len(rows)]):
            assert run.texts(np.array(chosen, dtype=np.int64)) == [rows[place][3] for place in chosen]


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all that is decompressed."""
    sizes, piece = [], runs.SortedRun._piece

    def counted(run: runs.SortedRun, *given: int) -> bytes:
        sizes.append(len(data := piece(run, *given)))
        return data

    monkeypatch.setattr(runs.SortedRun, "_piece", counted)
    return sizes


def test_a_small_range_unpacks_what_it_needs(tmp_path: Path, unpacked: list[int]) -> None:
    """Not the whole run: some frames for a range, and each frame at most twice where ranges are larger than frames."""
    step = LARGEST // 20_000
    rows = [(number * step, 0, 1, b"%0131d" % number) for number in range(20_000)]
    text = 131 * len(rows)
    with runs.opened_run(write(tmp_path / "run", [rows[:7000], rows[7000:]])) as run:
        unpacked.clear()
        assert rows_of(run, 5000 * step, 5009 * step) == rows[5000:5010]
        assert sum(unpacked) <= 4 * runs.FRAME_BYTES < text / 4
        for size, most in ((2000, 2), (100, 12)):
            unpacked.clear()
            for start in range(0, len(rows), size):
                rows_of(run, start * step, (start + size - 1) * step)
            assert sum(unpacked) <= most * text
        unpacked.clear()
        assert rows_of(run, 1, step - 1) == []
        assert sum(unpacked) <= runs.FRAME_BYTES


def everything(path: Path) -> list[object] | str:
    """All that is in a run, or why it cannot be read."""
    try:
        with runs.opened_run(path) as run:
            return [run.size, run.facts(), rows_of(run, 0, LARGEST)]
    except UserError as error:
        return str(error)


def test_damage_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any byte changed, and the file cut anywhere: what was written, or a UserError."""
    monkeypatch.setattr(runs, "FRAME_BYTES", 300)
    path = tmp_path / "run"
    write(path, [[(number, 7, 1, b"the sentence %d" % number) for number in range(20)]])
    whole, expected, refused = path.read_bytes(), everything(path), 0
    changes = [whole[:size] for size in range(len(whole))]
    for place in range(len(whole)):
        for bit in (1, 128):
            changes.append(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
    for data in changes:
        path.write_bytes(data)
        found = everything(path)
        assert found == expected or str(found).startswith(f"{path} is damaged (")
        refused += isinstance(found, str)
    assert refused > 0.99 * len(changes)


def stop_after_sorting(text: Path, out: Path, patched: pytest.MonkeyPatch) -> None:
    patched.setattr(stages.Preparation, "count_ranges", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare([str(text)], out, PrepareSettings(), processes=1)


def test_a_damaged_run_stops_a_preparation(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    prepare([str(text)], tmp_path / "whole", PrepareSettings(), processes=1)
    with monkeypatch.context() as patched:
        stop_after_sorting(text, out, patched)
    run = out / "preparing" / "run-000000"
    data = bytearray(run.read_bytes())
    data[len(data) // 2] ^= 1
    run.write_bytes(data)
    with pytest.raises(UserError, match=rf"{run} is damaged \(.*delete {out}, and write the same command"):
        prepare([str(text)], out, PrepareSettings(), processes=1)
    plan.remove_output(out)
    prepare([str(text)], out, PrepareSettings(), processes=1)
    assert (out / "index.json").read_bytes() == (tmp_path / "whole" / "index.json").read_bytes()


def test_runs_of_another_version_are_not_read(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A work folder of the version before, whose plan differs in its format alone: the preparation starts over."""
    out = tmp_path / "out"
    prepare([str(text)], tmp_path / "whole", PrepareSettings(), processes=1)
    with monkeypatch.context() as patched:
        patched.setattr(plan, "WORK_FORMAT", 2)
        stop_after_sorting(text, out, patched)
    head = json.dumps({"rows": 1, "room": 1, "text": 9}).encode().ljust(4096)
    (out / "preparing" / "run-000000").write_bytes(head + np.array([0, 0, 9, 1]).tobytes() + b"the text!{}")
    prepare([str(text)], out, PrepareSettings(), processes=1)
    assert (out / "index.json").read_bytes() == (tmp_path / "whole" / "index.json").read_bytes()
