"""Any number of runs is merged, in any number of passes, with few descriptors, to the same bytes."""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integration import tiny

from unsee_dist.data.prepare import holdout, merge, runs, sources, stages
from unsee_dist.data.prepare.documents import InputSplit
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare
from unsee_dist.data.prepare.sort import SortTask, sort_splits

WANTED = PrepareSettings(shard_sentences=1024, dev=20)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def many(tmp_path: Path, make_sentence: Callable[[int], str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A text of 6,000 lines and 4,000 sentences, cut into some 80 runs."""
    lines = [make_sentence(number % 4000) for number in range(6000)]
    random.Random(0).shuffle(lines)
    (tmp_path / "t.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr("unsee_dist.data.prepare.opening.CHUNK_BYTES", 2000)
    monkeypatch.setattr("unsee_dist.data.prepare.pipeline.SPLIT_BYTES", (4000, 4000))
    monkeypatch.setattr(merge, "RANGE", 1000)
    return tmp_path / "t.txt"


@pytest.mark.parametrize("fan_in", [2, 3, 9])
def test_any_number_of_passes_gives_the_same_corpus(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fan_in: int
) -> None:
    prepare([str(many)], tmp_path / "whole", WANTED, processes=1)
    monkeypatch.setattr(merge, "FAN_IN", fan_in)
    monkeypatch.setattr(merge, "STEP_BYTES", 1000)
    prepare([str(many)], tmp_path / "passes", WANTED, processes=1)
    assert contents(tmp_path / "passes") == contents(tmp_path / "whole")


@contextmanager
def few_descriptors(more: int) -> Iterator[None]:
    """No more than so many new ones."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_runs_need_few_descriptors(many: Path, tmp_path: Path) -> None:
    with few_descriptors(8):
        report = prepare([str(many)], tmp_path / "out", WANTED, processes=1)
    assert report.read == 6000


def test_a_pass_that_was_cut_goes_on(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut in every pass: before a merged run has its name, and before the runs that it replaces are removed."""
    prepare([str(many)], tmp_path / "whole", WANTED, processes=1)
    monkeypatch.setattr(merge, "FAN_IN", 4)
    finish, remove = runs.RunWriter.finish, merge.remove
    calls, interrupted = 0, 0

    def cut(here: Callable[..., None], *arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 10 + 8 * interrupted:  # later each time: what is done already is looked at again
            raise KeyboardInterrupt
        here(*arguments)

    monkeypatch.setattr(runs.RunWriter, "finish", lambda *given: cut(finish, *given))
    monkeypatch.setattr(merge, "remove", lambda *given: cut(remove, *given))
    while not (tmp_path / "out" / "index.json").exists():
        calls = 0
        try:
            prepare([str(many)], tmp_path / "out", WANTED, processes=1)
        except KeyboardInterrupt:
            interrupted += 1
    assert interrupted >= 3
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_was_sorted_is_not_read_again(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(stages.Preparation, "count_ranges", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare([str(many)], tmp_path / "out", WANTED, processes=1)
    monkeypatch.setattr(sources, "input_splits", lambda *_: 1 / 0)
    assert prepare([str(many)], tmp_path / "out", WANTED, processes=1).read == 6000


def test_a_merge_may_run_twice(tmp_path: Path, make_sentence: Callable[[int], str]) -> None:
    """Ray repeats a task whose worker died after it was done."""
    paths = [tmp_path / f"run-{number}" for number in range(3)]
    for number, path in enumerate(paths):
        lines = "\n".join(make_sentence(10 * number + k) for k in range(15)).encode()
        sort_splits(SortTask([InputSplit("t", [], lines)], path, PrepareSettings()))
    task = merge.MergeTask(paths, tmp_path / "merged")
    merge.merge_runs(task)
    merge.merge_runs(task)
    with runs.opened_run(tmp_path / "merged") as merged:
        assert merged.size.rows == 35
        assert int(merged.between(0, merge.HASHES - 1).times.sum()) == 45
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30), st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_hashes_that_share_their_first_half_are_told_apart(
    tmp_path_factory: pytest.TempPathFactory, hashes: list[tuple[int, int]], parts: int
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    paths = [folder / f"{number}" for number in range(parts)]
    for number, path in enumerate(paths):
        own = sorted(set(hashes[number::parts]))
        columns = np.array(own, dtype="<u8").reshape(-1, 2)
        with runs.new_run(path) as run:
            run.add(columns[:, 0], columns[:, 1], np.ones(len(own)), [f"{pair}".encode() for pair in own])
            run.finish(b"")
    merge.merge_runs(merge.MergeTask(paths, folder / "merged"))
    expected = sorted(set(hashes))
    with runs.opened_run(folder / "merged") as merged:
        rows = merged.between(0, merge.HASHES - 1)
        assert list(zip(rows.high.tolist(), rows.low.tolist(), strict=True)) == expected
        assert merged.texts(rows.place) == [f"{pair}".encode() for pair in expected]


@given(st.integers(2, 20_000), st.integers(2, 300))
@settings(deadline=None)
def test_groups_are_all_runs_once_and_fewer(number: int, fan_in: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(merge, "FAN_IN", fan_in)
        groups = merge.groups(number)
    assert groups[0][0] == 0
    assert groups[-1][1] == number
    assert all(one[1] == other[0] for one, other in pairwise(groups))
    assert all(1 <= last - first <= fan_in for first, last in groups)
    assert len(groups) < number


@given(st.lists(st.integers(1, 50), max_size=200), st.integers(1, 60))
def test_small_inputs_share_a_task(sizes: list[int], least: int) -> None:
    splits = [InputSplit(f"{number}", [], b"x" * size) for number, size in enumerate(sizes)]
    groups = list(sources.together(splits, least))
    assert [split for group in groups for split in group] == splits
    assert all(sum(split.size() for split in group) >= least for group in groups[:-1])
    assert all(sum(split.size() for split in group[:-1]) < least for group in groups)


@pytest.mark.parametrize("seed", range(5))
def test_the_chosen_pairs_do_not_depend_on_the_parts(seed: int) -> None:
    draw = random.Random(seed)
    candidates = []
    for _ in range(2000):
        rank, answer = draw.randrange(900), draw.randrange(600)
        pair = holdout.Pair(f"q{rank}", f"a{answer}", (f"q{rank}", f"a{answer}"))
        candidates.append((draw.random() < 0.5, rank, pair))
    whole = holdout.HeldOut(20)
    whole._best = {}
    for candidate in candidates:  # all of them, none thrown away
        rank = candidate[1]
        whole._best[rank] = min(candidate, whole._best.get(rank, candidate))
    parts = holdout.HeldOut(20)
    for start in range(0, len(candidates), 30):
        parts.add(candidates[start : start + 30])
    assert len(parts._best) <= 8 * 20 + 30
    assert parts.pairs() == whole.pairs()


@pytest.mark.parametrize(
    ("chosen", "fingerprint"),
    [
        (PrepareSettings(shard_sentences=2048), "6bea70241a3cf8814203e40b70d67750"),
        (PrepareSettings(seed=3, dev=50, shard_sentences=4096), "cacec129dbffab886db6484908e07b4d"),
        (PrepareSettings(zst=True, min_words=5), "ac1f98f2eed2c874b2d3a06887883b85"),
    ],
    ids=["plain", "dev", "zst"],
)
def test_the_bytes_of_a_corpus_stay_those_of_earlier_versions(
    tmp_path: Path, chosen: PrepareSettings, fingerprint: str
) -> None:
    lines = tiny.corpus(20_000)
    random.Random(1).shuffle(lines)
    more = ["naïve café is good", "x y", "  tab\tin the line  "]
    (tmp_path / "a.txt").write_text("\r\n".join(lines[:9000]) + "\n\n\n")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("\n".join(lines[5000:] + more).encode()))
    documents = [json.dumps({"text": lines[i : i + 4]}) for i in range(0, 4000, 4)]
    (tmp_path / "c.jsonl").write_text("\n".join(documents))
    inputs = [str(tmp_path / name) for name in ("a.txt", "b.txt.gz", "c.jsonl")]
    assert prepare(inputs, tmp_path / "out", chosen, processes=1).fingerprint == fingerprint
