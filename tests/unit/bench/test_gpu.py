"""`unsee bench --only gpu`: without a GPU one sentence; a case that ends its process costs no other case."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from unsee_dist import bench
from unsee_dist.bench import gpu, synthetic
from unsee_dist.bench.gpu_step import CASES
from unsee_dist.bench.kernels import profiled
from unsee_dist.bench.launch import ProcessFailed
from unsee_dist.bench.table import BenchRow
from unsee_dist.bench.timing import distances_s, mark, matmul_ceiling
from unsee_dist.cli import machine
from unsee_dist.config import load
from unsee_dist.distributed.world import World
from unsee_dist.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def console() -> Console:
    return Console(quiet=True)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_asked_for_without_a_gpu_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--only gpu needs a GPU.*unsee doctor"):
        bench.main("unsee-vicreg", [], tmp_path / "bench.json", None, ["order", "gpu"])
    assert not (tmp_path / "bench.json").exists()  # before any other part


@pytest.mark.usefixtures("no_gpu")
def test_of_all_parts_it_is_left_out_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "_measure", lambda part, *_: {part: "measured"})
    bench.main("unsee-vicreg", [], tmp_path / "bench.json", None)
    written = json.loads((tmp_path / "bench.json").read_text())
    assert [part for part in bench.PARTS if part in written] == [
        part for part in bench.PARTS if part != "gpu"
    ]
    assert "gpu: left out." in capsys.readouterr().out


def test_with_a_gpu_it_is_a_part_and_written_after_each_case(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out, seen = tmp_path / "bench.json", []

    def measure(*_: object) -> Generator[BenchRow]:
        for rows in (1, 2):
            yield {"rows": [{"case": "a"}] * rows, "peers": [], "scaling": []}
            seen.append(len(json.loads(out.read_text())["gpu"]["rows"]))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "measure", measure)
    bench.main("unsee-vicreg", [], out, None, ["gpu"])
    assert seen == [1, 2]


def test_a_case_that_ended_its_process_is_named_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [
        {"case": "too large", "error": "memory"},
        {"case": "faulty", "error": "died", "stderr": "Traceback"},
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "measure", lambda *_: iter([{"rows": rows, "peers": [], "scaling": []}]))
    with pytest.raises(UserError, match="ended with an error: faulty"):
        bench.main("unsee-vicreg", [], tmp_path / "bench.json", None, ["gpu"])


@pytest.mark.parametrize(
    ("arguments", "config", "only"),
    [
        (["unsee-vicreg"], "unsee-vicreg", None),
        (["--only", "gpu"], "unsee-vicreg", ["gpu"]),  # no corpus is made for it
        (["--only", "scale", "--only", "gpu"], "unsee-vicreg", ["scale", "gpu"]),
        (["unsee-vicreg", "--only", "gpu", "--only", "order"], "unsee-vicreg", ["gpu", "order"]),
    ],
)
def test_the_command_asks_for_the_parts_that_are_written(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], config: str, only: list[str] | None
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(bench, "main", lambda *given: asked.extend(given))
    assert CliRunner().invoke(machine.app, ["bench", *arguments], standalone_mode=False).exception is None
    assert (asked[0], asked[4]) == (config, only)


class Processes:
    """Stands in for processes. Each prints the machine's row and one a case until it comes to one in `faulty`."""

    def __init__(self, faulty: Sequence[str]) -> None:
        self.faulty, self.started = faulty, list[list[str]]()

    def __call__(
        self, _module: str, arguments: Sequence[str], _ranks: int, *, limit_s: float
    ) -> Generator[BenchRow]:
        assert limit_s > 0
        labels = json.loads(arguments[0])
        self.started.append(labels)
        yield {"machine": {}}
        for label in labels:
            if label in self.faulty:
                raise ProcessFailed(f"{label} failed", "exit code -11, ", "Traceback")
            yield {"case": label, "step_ms": 1.0}


def cases(rows: Sequence[BenchRow]) -> list[tuple[str, bool]]:
    return [(row["case"], "error" in row) for row in rows if "case" in row]


def test_a_case_that_ends_its_process_is_a_row_and_another_process_goes_on(console: Console) -> None:
    processes = Processes(faulty=["b"])
    rows = list(gpu.step_rows(["a", "b", "c"], ["config"], gpu.BenchDeadline(1), console, processes))
    assert cases(rows) == [("a", False), ("b", True), ("c", False)]
    assert processes.started == [["a", "b", "c"], ["c"]]
    failed = next(row for row in rows if row.get("case") == "b")
    assert failed["error"] == "its process failed: exit code -11, "
    assert failed["stderr"] == "Traceback"


def test_two_processes_without_a_row_are_the_last(console: Console) -> None:
    processes = Processes(faulty=["a", "b", "c", "d"])
    rows = list(gpu.step_rows(["a", "b", "c", "d"], ["config"], gpu.BenchDeadline(1), console, processes))
    assert cases(rows) == [("a", True), ("b", True), ("c", True), ("d", True)]
    assert len(processes.started) == gpu.FRUITLESS
    assert rows[-1]["error"] == "left out: the processes before it failed"


def test_what_has_not_begun_in_time_is_left_out(console: Console) -> None:
    processes = Processes(faulty=[])
    rows = list(gpu.step_rows(["a", "b"], ["config"], gpu.BenchDeadline(0), console, processes))
    assert cases(rows) == [("a", True), ("b", True)]
    assert not processes.started


def test_the_tables_have_a_line_for_rows_of_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    result: BenchRow = {
        "lengths": synthetic.LENGTHS,
        "rows": [
            {"case": "a", "batch": 8, "precision": "bf16", "error": "no memory"},
            {"case": "b", "error": "late"},
        ],
        "peers": [],
        "scaling": [{"case": "2 gloo ranks", "error": "died"}],
    }
    console = Console(width=200)
    for page in gpu.gpu_table.pages(result):
        console.print(page)
    printed = capsys.readouterr().out
    assert all(sentence in printed for sentence in ("no memory", "late", "2 gloo ranks", "log-normal"))


def test_labels_are_unique_and_every_case_is_a_legal_configuration() -> None:
    assert len({case.label for case in CASES}) == len(CASES)
    configs = {case.label: case.config("unsee-vicreg", []) for case in CASES}
    assert {case.label: case.stage for case in CASES if case.stage is not None} == {"ZeRO-1": 1, "ZeRO-3": 3}
    assert {config.train.batch for config in configs.values()} == {32, 1024, 16384}


def test_lengths_are_as_the_caption_says() -> None:
    lengths = synthetic.sentences(100_000, 64, 30522, seed=0).lengths
    assert abs(lengths.mean() - 29.4) < 0.1
    assert abs((lengths <= 32).mean() - 0.66) < 0.01
    assert (lengths.min(), lengths.max()) >= (synthetic.SHORTEST, 64)


def test_sentences_are_equal_for_a_seed_and_have_legal_ids() -> None:
    first, again, other = (synthetic.sentences(200, 64, 100, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.ids, again.ids)
    assert not np.array_equal(first.lengths, other.lengths)
    ends = np.cumsum(first.lengths)
    assert set(first.ids[ends - 1]) == {synthetic.SEP}
    assert set(first.ids[ends - first.lengths]) == {synthetic.CLS}
    words = np.delete(first.ids, np.concatenate([ends - 1, ends - first.lengths]))
    assert words.min() >= synthetic.FIRST
    assert words.max() < 100


def test_ranks_have_different_sentences_and_micro_batches_all_of_them() -> None:
    config = load("unsee-vicreg", ["train.batch=16", "train.micro_batch=4"])
    parts = [synthetic.batch(config, 100, 1, World(rank, 2, rank, CPU)) for rank in range(2)]
    assert [each.sentences for each in parts[0].micro_batches] == [4, 4]
    assert not set(parts[0].ids) & set(parts[1].ids)
    keys = [set(torch.cat([m.keys for m in part.micro_batches]).tolist()) for part in parts]  # type: ignore[misc]
    assert not keys[0] & keys[1]
    assert sum(m.tokens for m in parts[0].micro_batches) == parts[0].tokens


def test_a_profile_counts_calls_and_reads() -> None:
    x = torch.ones(4)
    few = profiled(CPU, lambda: x.add(1))
    more = profiled(CPU, lambda: [x.add(1).sum().item() for _ in range(5)])
    assert few.host_reads == 0
    assert more.host_reads == 5
    assert more.launches > few.launches > 0
    assert sum(kernel.launches for kernel in few.longest) == few.launches
    assert [kernel.ms for kernel in more.longest] == sorted((k.ms for k in more.longest), reverse=True)
    assert sum(kernel.share for kernel in more.longest) == pytest.approx(1)


def test_a_longer_list_of_kernels_is_cut() -> None:
    x = torch.ones(4)
    cut = profiled(CPU, lambda: x.add(1).mul(2).sub(3), longest=2)
    assert len(cut.longest) == 2
    assert sum(kernel.launches for kernel in cut.longest) < cut.launches


def test_marks_are_moments_in_order() -> None:
    first, second, third = mark(CPU), mark(CPU), mark(CPU)
    assert all(seconds > 0 for seconds in distances_s([first, second, third]))


def test_a_product_of_twice_the_size_has_about_the_same_rate() -> None:
    small, large = (matmul_ceiling(CPU, torch.float32, size) for size in (128, 256))
    assert (
        0.05 < large / small < 20
    )  # eight times the work: a rate that forgot the size would be far out on both sides
    assert small > 1e7
